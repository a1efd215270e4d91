"""Refiners from files: published ones and our own."""

import re
from operator import index
from pathlib import Path
from typing import Any

from torch import Tensor

from refinebox.detection.tensors import load_tensors
from refinebox.files import checkpoint, hub
from refinebox.refinement.architecture import from_metadata
from refinebox.refinement.quality import Quality
from refinebox.refinement.refiner import Refiner

LATERAL = re.compile(r"channel_mapper\.fpn_lateral\d+\.weight")


def load_refiner(path: str | Path) -> Refiner:
    """A refiner from a published ``model_final.pth`` or from a ``.safetensors`` file that ``refinebox train`` wrote.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged, unsafe, or holds something else.
    """
    return load_refiner_and_history(Path(path))[0]


def load_refiner_and_history(path: Path) -> tuple[Refiner, dict[str, Any]]:
    """The refiner and what its file says about its training; empty for a published file."""
    path = hub.local(path)
    state, metadata = checkpoint.read(path)
    if metadata and metadata.get("kind") != "refiner":
        raise ValueError(
            f"{path} holds a {metadata.get('kind')}, expected a refiner; refinebox train writes best.safetensors"
        )
    return build_refiner(state, metadata, str(path)), metadata


def build_refiner(state: dict[str, Tensor], metadata: dict[str, Any], where: str) -> Refiner:
    """The refiner with the tensors of ``state``; what ``metadata`` does not say is as published."""
    laterals = sorted(filter(LATERAL.fullmatch, state))
    if not laterals:
        raise ValueError(
            f"{where} is no refiner: it has no channel_mapper.fpn_lateral tensors; "
            f"its first are {', '.join(list(state)[:3])}"
        )
    channels = [state[key].shape[1] for key in laterals]
    with checkpoint.understood(where):
        refiner = Refiner(
            channels,
            metadata.get("strides", [4 * 2**level for level in range(len(channels))]),
            index(metadata.get("steps", 3)),
            from_metadata(metadata, where),
        )
    if "quality.of_column.weight" in state:
        refiner.quality = Quality(refiner.steps, len(state["quality.of_column.weight"]))
    load_tensors(refiner, state, where)
    return refiner
