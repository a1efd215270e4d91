"""Files and folders of the Hugging Face hub, in the cache that its library keeps."""

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

WEIGHTS = ("model*.safetensors*", "pytorch_model*.bin*")  # the first that there is, with the index of its shards
SUFFIXES = (".safetensors", ".onnx", ".pth", ".pt", ".ckpt", ".bin")
BESIDE = ("*.json", "*.txt")


def is_id(name: str) -> bool:
    """Whether a name is ``organisation/name`` of the hub, or ``organisation/name:FILE``, rather than a path."""
    repository, colon, file = name.partition(":")
    written = re.fullmatch(r"[\w-][\w.-]*/[\w.-]+", repository) is not None and bool(colon) == bool(file)
    path = not colon and repository.endswith((*SUFFIXES, ".json"))
    return written and not path and not Path(name).exists()


def local(name: str | Path) -> Path:
    """Where what a name means is on this machine, downloaded if need be; a path stays as it is.

    ``organisation/name:FILE`` is that file; ``organisation/name`` the folder that transformers wrote, or the one
    checkpoint that there is. ``HF_HUB_OFFLINE`` is honoured.

    Raises:
        ValueError: huggingface_hub is missing, or there are several checkpoints; the message lists them.
        ConnectionError: the hub cannot be reached or has no such model, and the cache does not hold it.
    """
    text = name.as_posix() if isinstance(name, Path) else name
    if not is_id(text):
        return Path(name)
    repository, _, file = text.partition(":")
    if file:
        library = _library(text)
        return Path(_had(text, f"get it from {_address(repository)}", library.hf_hub_download, repository, file))
    found = folder(repository)
    if (found / "config.json").is_file() or any(found.glob("*.index.json")):
        return found
    files = [path for path in sorted(found.rglob("*")) if path.name.endswith(SUFFIXES)]
    if not files:
        found = _snapshot(repository, [f"*{suffix}" for suffix in SUFFIXES])
        files = [path for path in sorted(found.rglob("*")) if path.name.endswith(SUFFIXES)]
    if len(files) > 1:
        listed = ", ".join(path.relative_to(found).as_posix() for path in files[:8])
        raise ValueError(f"{repository} of the hub holds several checkpoints ({listed}); name one as {repository}:FILE")
    return files[0] if files else found


def folder(name: str) -> Path:
    """Where ``organisation/name`` is on this machine, downloaded if need be; ``HF_HUB_OFFLINE`` is honoured.

    Raises:
        ValueError: huggingface_hub is missing.
        ConnectionError: the hub cannot be reached or has no such model, and the cache does not hold it; the message
            says which files to put where.
    """
    found = _snapshot(name, [*BESIDE, WEIGHTS[0]])
    if not any(found.glob(WEIGHTS[0])):
        found = _snapshot(name, [*BESIDE, WEIGHTS[1]])
    return found


def licence(name: str) -> str | None:
    """The licence that the card of ``organisation/name`` names; None where it names none, or cannot be had."""
    try:
        path = local(f"{name}:README.md")
        head = re.match(r"---\n(.*?)\n---", path.read_text(encoding="utf-8"), flags=re.DOTALL)
    except (OSError, ValueError):
        return None
    found = re.search(r"^license:[ \t]*['\"]?([\w.-]+)", head[1], flags=re.MULTILINE) if head else None
    return found[1] if found else None


def _snapshot(name: str, patterns: Sequence[str]) -> Path:
    advice = (
        f"get config.json, preprocessor_config.json and model.safetensors from {_address(name)} by hand, put them into "
        "a folder and name that folder"
    )
    return Path(_had(name, advice, _library(name).snapshot_download, name, allow_patterns=list(patterns)))


def _library(name: str) -> Any:
    try:
        import huggingface_hub
    except ImportError as error:
        raise ValueError(
            f"{name} is on the Hugging Face hub, which needs huggingface_hub; run: pip install "
            "'refinebox[transformers]', or download its files and name their folder"
        ) from error
    return huggingface_hub


def _had(name: str, advice: str, get: Callable[..., str], *arguments: Any, **options: Any) -> str:
    """What the hub's library gives; whatever goes wrong is said in one line."""
    try:
        return get(*arguments, **options)
    except (OSError, ValueError) as error:  # of the network, and of what is not in the cache
        reason = str(error).split("\n", 1)[0]
        what = "file" if ":" in name else "folder"
        raise ConnectionError(
            f"{name} is no {what} here and could not be had from the Hugging Face hub ({reason}); {advice}"
        ) from error


def _address(name: str) -> str:
    return f"https://huggingface.co/{name}"
