"""Detectors that have no row in the table: models of libraries, folders that transformers wrote, and the hub."""

import importlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from refinebox.detection.detector import Detector
from refinebox.files import checkpoint

LIBRARIES = ("torchvision", "effdet", "libreyolo")  # each a prefix of names and a module of refinebox.adapters
NATIVE = ("detr", "conditional_detr", "dab-detr", "deformable_detr")  # model types that the table's adapters read
SOURCES = {  # how detectors that have no row are named, where they come from, and the extra that brings them
    "FOLDER or organisation/name": ("transformers, saved or on its hub", "transformers"),
    "torchvision:NAME": ("torchvision", ""),
    "effdet:NAME": ("effdet (EfficientDet)", "effdet"),
    "libreyolo:FAMILY-SIZE": ("libreyolo (YOLOX, RTMDet, ...)", "libreyolo"),
    "package.module:function": ("your own code", ""),
}


def from_library(source: str, model: str, weights: str | Path | None, *, ema: bool | None = None) -> Detector:
    """The frozen detector of one of :data:`LIBRARIES`, with weights from a file or the library's own.

    Raises:
        ValueError: the library is missing or has no such model, or the file is unsafe or does not fit.
        FileNotFoundError: there is no such file.
        ConnectionError: the library's own weights could not be downloaded.
    """
    adapter = importlib.import_module(f"refinebox.adapters.{source}")
    state, metadata = (None, {}) if weights is None else checkpoint.read(Path(weights), ema)
    if metadata:
        raise ValueError(f"{weights} holds a {metadata.get('kind')} of refinebox, which says what it is; name it alone")
    detector: Detector = adapter.load(model, state, f"{source}:{model}" if weights is None else str(weights))
    return detector


def known(source: str) -> list[str]:
    """The names that a library's models have, without the prefix."""
    names: list[str] = importlib.import_module(f"refinebox.adapters.{source}").known()
    return names


def about(source: str, model: str) -> dict[str, str]:
    """What is known of a library's model without opening it, in words.

    Raises:
        ValueError: the library is missing or has no such model.
    """
    facts: dict[str, str] = importlib.import_module(f"refinebox.adapters.{source}").about(model)
    return facts


def about_folder(folder: Path) -> dict[str, str]:
    """What a folder that transformers wrote says of its detector, in words.

    Raises:
        ValueError: transformers is missing, or there is none in the folder.
    """
    facts: dict[str, str] = importlib.import_module("refinebox.adapters.transformers").about(folder)
    own = native(checkpoint.read_config(folder))
    return {**facts, "built by": "refinebox" if own else "transformers"}


def native(config: Mapping[str, Any]) -> bool:
    """Whether an adapter of the table reads what a ``config.json`` describes; without one it has to."""
    backbone = config.get("backbone_config") or {}
    name = config.get("backbone") or backbone.get("backbone") or backbone.get("model_type") or "resnet50"
    known = config.get("model_type") in NATIVE and config.get("position_embedding_type", "sine") == "sine"
    return not config or (known and re.fullmatch(r"resnet(\d+)?", str(name)) is not None)


def is_hub_id(name: str) -> bool:
    """Whether a name is ``organisation/name`` of the Hugging Face hub rather than a path."""
    written = re.fullmatch(r"[\w-][\w.-]*/[\w.-]+", name) is not None
    return written and not Path(name).exists() and not name.endswith((".safetensors", ".pth", ".pt", ".bin", ".json"))
