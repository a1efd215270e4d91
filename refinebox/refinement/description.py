"""What is in a file that refinebox reads or wrote, in words."""

import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from refinebox.files import checkpoint
from refinebox.refinement.architecture import from_metadata
from refinebox.refinement.change import decided, deciding
from refinebox.refinement.cost import parameters
from refinebox.refinement.exported import METADATA_KEY, read_exported
from refinebox.refinement.proof import Proof
from refinebox.refinement.refiner import Refiner
from refinebox.refinement.refiner_file import build_refiner

SPLITS = {"train": "learned from", "val": "judged by"}


def described(path: Path) -> dict[str, str]:
    """Lines about a refiner, an upgraded detector, a plain or an exported one, by what they tell.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged, or holds nothing of refinebox's.
    """
    if path.suffix in (".onnx", ".pt2"):
        metadata = read_exported(path)[1] if path.suffix == ".onnx" else read_program(path)
        with checkpoint.understood(path):
            return about_exported(metadata)
    tensors, metadata = checkpoint.read(path)
    with checkpoint.understood(path):
        return about_checkpoint(tensors, metadata, str(path))


def about_checkpoint(tensors: Mapping[str, Tensor], metadata: dict[str, Any], where: str) -> dict[str, str]:
    """Of the tensors of a checkpoint and its metadata; ``where`` names it in messages."""
    kind = metadata.get("kind", "refiner")
    lines = {"kind": kind if metadata else "refiner, as published"}
    if kind == "detector":
        return lines | about_detector(metadata["detector"])
    upgraded = kind == "upgraded detector"
    own = {
        name.removeprefix("refiner."): tensor for name, tensor in tensors.items() if not name.startswith("detector.")
    }
    about = metadata["refiner"] if upgraded else metadata
    refiner = build_refiner(own, about, where)
    lines |= about_detector(metadata["detector"]) if upgraded else {}
    lines |= about_refiner(refiner, about, where)
    return lines | about_gain(metadata)


def details(path: Path) -> dict[str, str]:
    """Further lines about a safetensors file that refinebox wrote: what it was made of and with, as far as it says."""
    metadata = checkpoint.read_metadata(path)
    detector, about = metadata.get("detector"), metadata.get("refiner") or metadata
    listed = detector["categories"] if isinstance(detector, dict) else metadata.get("categories") or []
    settings, data = about.get("settings") or {}, metadata.get("data") or {}
    lines = {
        "categories": ", ".join(f"{entry['id']} {entry['name'] or '?'}" for entry in listed),
        "settings": ", ".join(f"{name} {value}" for name, value in settings.items() if not isinstance(value, dict)),
        **{name: about_data(data[split]) for split, name in SPLITS.items() if split in data},
    }
    for name, source in (metadata.get("sources") or {}).items():
        lines[f"{name} file"] = f"{source['file'] or 'its tensors'} (sha256 {source['sha256'][:12]})"
    return {name: line for name, line in lines.items() if line}


def about_data(origin: dict[str, Any]) -> str:
    """Of the images that a refiner learned from or was judged by."""
    file = f"{origin['file']} (sha256 {origin['sha256'][:12]}), " if "file" in origin else ""
    return f"{file}{origin['images']:,} images, {origin['boxes']:,} boxes"


def read_program(path: Path) -> dict[str, Any]:
    """The metadata of a ``.pt2`` file that refinebox wrote, without its graph.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is damaged, or refinebox did not write it.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no file at {path}; check the path")
    try:
        with zipfile.ZipFile(path) as archive:
            names = [name for name in archive.namelist() if name.endswith(f"/{METADATA_KEY}.json")]
            return dict(json.loads(archive.read(names[0])))
    except (zipfile.BadZipFile, IndexError) as error:
        raise ValueError(f"{path} is damaged or not from refinebox; expected what refinebox export wrote") from error


def about_exported(metadata: dict[str, Any]) -> dict[str, str]:
    """Of an exported file."""
    proof = Proof(**{"maps": None, **metadata["proof"]})
    kind = f"{metadata['kind']}, {'upgraded' if metadata['upgraded'] else 'plain'}"
    lines = {
        "kind": f"{kind}, in half precision" if metadata.get("precision") == "float16" else kind,
        **about_detector(metadata["detector"]),
        "exported by": f"refinebox {metadata['version']} (detector's sha256 {metadata['sha256'][:12]})",
        "proof": f"at most {proof.told()} from torch",
    }
    if ap := metadata.get("judged", {}).get("AP"):
        lines["AP"] = f"{ap['exported']:.2f} on {ap['images']} images, torch {ap['torch']:.2f}"
    return lines


def about_detector(detector: dict[str, Any]) -> dict[str, str]:
    """Of the frozen detector in a file."""
    voting = (detector.get("choice") or {}).get("voting")
    lines = {"detector": f"{detector['name']} ({detector['family']}), {len(detector['categories'])} categories"}
    if prompt := detector.get("settings", {}).get("prompt"):
        lines["prompt"] = ". ".join(prompt)
    return lines | ({"voting": f"candidates with IoU ≥ {voting:g}"} if voting else {})


def about_refiner(refiner: Refiner, about: dict[str, Any], where: str) -> dict[str, str]:
    """Of the refiner: what it is made of and what it reads."""
    parts = from_metadata(about, where)
    made_of = [
        "FPN" if parts.pyramid == "fpn" else "fused pyramid",
        f"head of {parts.blocks} blocks reads {'mean and places' if parts.placed else 'mean'}",
        f"area {parts.enlargement:g} x the box in {parts.cells} x {parts.cells} cells",
        f"{parts.moves} moves",
        *(["a stem for the pixels"] if parts.stem else []),
    ]
    lines = {
        "architecture": f"{parts.name}: {', '.join(made_of)}; {refiner.steps} steps",
        "reads": f"{'/'.join(map(str, refiner.channels))} channels at strides {'/'.join(map(str, refiner.strides))}",
        "parameters": f"{parameters(refiner):,}",
    }
    if refiner.quality is not None:
        lines["quality"] = f"scores follow it with a strength of {refiner.quality.strength.item():.2g}"
    if isinstance(about.get("detector"), str):
        lines["trained on"] = f"{about['detector']} (sha256 {about['detector_sha256'][:12]})"
    return lines


def about_gain(metadata: dict[str, Any]) -> dict[str, str]:
    """What validation images and those that decide said, where the file knows it."""
    lines = {}
    before, cut, after = ((metadata.get(name) or {}).get("AP") for name in ("before", "clipped", "after"))
    if before is not None and after is not None:
        free = "" if cut is None else f" ({cut:.1f} cut at the borders)"
        lines["validation AP"] = f"{before:.1f}{free} → {after:.1f}, by which the epoch was chosen"
    if choice := metadata.get("choice"):
        verdict = "apply" if choice["refine"] else "do not apply"
        if choice.get("vote"):
            verdict += ", and vote"
        lines["verdict"] = f"{deciding(choice)} say {decided(choice)}, so {verdict}"
    return lines
