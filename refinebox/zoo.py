"""The table of names, and how a name or a file becomes a frozen detector."""

import importlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from refinebox import checkpoint
from refinebox.detector import Detector, Profile


@dataclass(frozen=True)
class Entry:
    """One row of the table of names.

    Attributes:
        family: module of ``refinebox.adapters``.
        backbone: for people to read.
        ap: published COCO val2017 AP in points; None where none is published.
        source: where the weights come from: a web page, or the name of a file in this package.
        settings: what the tensors cannot tell, as keyword arguments of the network.
    """

    family: str
    backbone: str
    ap: float | None
    source: str
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def bundled(self) -> Path | None:
        """The weights' path where they ship with the package."""
        return Path(__file__).parent / self.source if self.source.endswith(".safetensors") else None


DAB_PAGE = "https://github.com/IDEA-Research/DAB-DETR#model-zoo"

DETECTORS: dict[str, Entry] = {
    "dab-detr-shapes": Entry("dab_detr", "small ResNet", None, "dab_detr_shapes.safetensors"),
    "dab-detr-r50": Entry("dab_detr", "R50", 42.2, DAB_PAGE),
    "dab-detr-r50-3pat": Entry("dab_detr", "R50, 3 patterns", 42.6, DAB_PAGE),
    "dab-detr-r50-dc5": Entry("dab_detr", "R50, DC5", 44.5, DAB_PAGE, {"dilation": True, "temperature": 10.0}),
    "dab-detr-r50-dc5-fixxy": Entry("dab_detr", "R50, DC5", 44.7, DAB_PAGE, {"dilation": True}),
    "dab-detr-r50-dc5-3pat": Entry("dab_detr", "R50, DC5, 3 patterns", 45.7, DAB_PAGE, {"dilation": True}),
    "dab-detr-r101": Entry("dab_detr", "R101", None, DAB_PAGE),
}


def load_detector(name: str, weights: str | Path | None = None) -> Detector:
    """A frozen detector.

    Args:
        name: a name of the table (``refinebox detectors`` lists them), or the path of a detector file of ours.
        weights: the checkpoint; by default the one that ships with the package.

    Raises:
        ValueError: the name is unknown, or the checkpoint is damaged, unsafe, incomplete or of another family.
        FileNotFoundError: there is no file at the path, or the weights must be fetched by hand.
    """
    path = weights_path(name, weights)
    state, metadata = checkpoint.read(path)
    if metadata and metadata.get("kind") != "detector":
        raise ValueError(f"{path} holds a {metadata.get('kind')}, expected a detector")
    if metadata:
        return build(state, profile_from(metadata.get("detector", {}), str(path)), str(path))
    if name not in DETECTORS:
        raise ValueError(f"{path} does not say which detector it is; name one and pass the file with --weights")
    entry = DETECTORS[name]
    return build(state, Profile(name=name, family=entry.family, settings=entry.settings), str(path))


def weights_path(name: str, weights: str | Path | None = None) -> Path:
    """The file that :func:`load_detector` reads for the same arguments.

    Raises:
        ValueError: the name is unknown.
        FileNotFoundError: the weights must be fetched by hand; the message says where.
    """
    if name not in DETECTORS and not name.endswith(".safetensors"):
        raise ValueError(
            f"unknown detector {name!r}; known: {', '.join(DETECTORS)}, or the path of a .safetensors file"
        )
    if weights is not None:
        return Path(weights)
    if name not in DETECTORS:
        return Path(name)
    entry = DETECTORS[name]
    if entry.bundled is None:
        raise FileNotFoundError(
            f"{name} does not ship with refinebox; download its checkpoint from {entry.source} "
            "and pass it as weights (--weights FILE)"
        )
    return entry.bundled


def family_of(state: Mapping[str, Tensor]) -> str | None:
    """The adapter that reads a state dict, told from its keys; None where no family fits."""
    if "refpoint_embed.weight" in state or any("ref_anchor_head" in key for key in state):
        return "dn_detr" if "label_enc.weight" in state else "dab_detr"
    if any(key.startswith("transformer.decoder.ref_point_head") for key in state):
        return "conditional_detr"
    return "detr" if "query_embed.weight" in state else None


def build(state: Mapping[str, Tensor], profile: Profile, where: str) -> Detector:
    """The detector of ``profile.family`` with the tensors of ``state``; ``where`` names the file in messages.

    Raises:
        ValueError: the tensors belong to another family, or to none.
    """
    family = family_of(state)
    if family is None:
        raise ValueError(f"{where} is no DETR-like checkpoint; its first tensors are {', '.join(list(state)[:3])}")
    if family != profile.family:
        raise ValueError(
            f"{where} is a {family} checkpoint, but {profile.name} is {profile.family}; name a detector of that family"
        )
    adapter = importlib.import_module(f"refinebox.adapters.{family}")
    detector: Detector = adapter.build(state, profile)
    return detector


def describe(detector: Detector) -> dict[str, Any]:
    """What a file must say beside a detector's tensors so that it can be built again."""
    profile = detector.profile
    return {
        "name": profile.name,
        "family": profile.family,
        "classification": profile.classification,
        "categories": [{"id": i, "name": detector.category_names.get(i)} for i in detector.category_ids],
        "short_side": profile.short_side,
        "long_side": profile.long_side,
        "settings": dict(profile.settings),
    }


def profile_from(description: Mapping[str, Any], where: str) -> Profile:
    """The inverse of :func:`describe`; ``where`` names the file in messages.

    Raises:
        ValueError: something is missing from the description.
    """
    try:
        categories = description["categories"]
        return Profile(
            name=description["name"],
            family=description["family"],
            classification=description["classification"],
            category_ids=tuple(category["id"] for category in categories),
            category_names={category["id"]: category["name"] for category in categories if category["name"]},
            short_side=description["short_side"],
            long_side=description["long_side"],
            settings=description["settings"],
        )
    except KeyError as error:
        raise ValueError(f"{where} does not say the {error} of its detector; write the file again") from error
