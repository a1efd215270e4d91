"""Folders of the Hugging Face hub, in the cache that its library keeps."""

from pathlib import Path
from typing import Any

WEIGHTS = ("model*.safetensors*", "pytorch_model*.bin*")  # the first that there is, with the index of its shards


def folder(name: str) -> Path:
    """Where ``organisation/name`` is on this machine, downloaded if need be; ``HF_HUB_OFFLINE`` is honoured.

    Raises:
        ValueError: huggingface_hub is missing.
        ConnectionError: the hub cannot be reached or has no such model, and the cache does not hold it; the message
            says which files to put where.
    """
    try:
        import huggingface_hub
    except ImportError as error:
        raise ValueError(
            f"{name} is on the Hugging Face hub, which needs huggingface_hub; run: pip install "
            "'refinebox[transformers]', or download its files and name their folder"
        ) from error
    found = Path(_snapshot(huggingface_hub, name, WEIGHTS[0]))
    if not any(found.glob(WEIGHTS[0])):
        found = Path(_snapshot(huggingface_hub, name, WEIGHTS[1]))
    return found


def _snapshot(huggingface_hub: Any, name: str, weights: str) -> str:
    try:
        snapshot: str = huggingface_hub.snapshot_download(name, allow_patterns=["*.json", "*.txt", weights])
    except (OSError, ValueError) as error:  # of the network, and of what is not in the cache
        reason = str(error).split("\n", 1)[0]
        raise ConnectionError(
            f"{name} is no folder here and could not be had from the Hugging Face hub ({reason}); get config.json, "
            f"preprocessor_config.json and model.safetensors from https://huggingface.co/{name} by hand, put them into "
            "a folder and name that folder"
        ) from error
    return snapshot
