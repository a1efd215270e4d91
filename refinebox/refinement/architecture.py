"""Which parts a refiner is made of: named sets, and how they are written to a file and read back."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Literal, Self, get_args

Pyramid = Literal["fpn", "fused"]
Moves = Literal["logit", "relative"]
CHOICES = {"pyramid": get_args(Pyramid), "moves": get_args(Moves)}
COARSE = 8  # a stride; a refiner for coarser maps looks at the pixels as well


@dataclass(frozen=True)
class Architecture:
    """The parts of a refiner. :data:`PUBLISHED` is the paper's; :data:`SPATIAL` is what docs/results.md found best.

    Attributes:
        pyramid: the published ``fpn``, or ``fused``, with norm and activation between its levels.
        placed: the head reads what lies where inside a box, beside the mean over it.
        enlargement: side of the pooled area over the side of the box, about its centre.
        moves: of the ``logit`` of each coordinate, or ``relative`` to the box's own sides. Boxes moved the second way
            are cut at the borders of the image in the end, and their losses are relative to the object's sides.
        cells: of a side that a box is pooled in; of 14 a learned convolution makes 7, where the paper takes means.
        blocks: residual ones in the head.
        stem: a level of stride 4 is made from the pixels, for detectors whose maps are coarse.
    """

    pyramid: Pyramid = "fused"
    placed: bool = True
    enlargement: float = 1.25
    moves: Moves = "relative"
    cells: int = 14
    blocks: int = 2
    stem: bool = False

    @property
    def name(self) -> str:
        """What it is called in :data:`ARCHITECTURES`, or ``custom``."""
        plain = replace(self, stem=False)
        return next((name for name, other in ARCHITECTURES.items() if other == plain), "custom")

    def suited(self, strides: Sequence[int]) -> Self:
        """The same, with a stem if it is the spatial one and the finest of the detector's maps is coarser than 8."""
        return replace(self, stem=self.stem or (self == SPATIAL and min(strides, default=0) > COARSE))


PUBLISHED = Architecture(pyramid="fpn", placed=False, enlargement=1.0, moves="logit", cells=7, blocks=3)
SPATIAL = Architecture()
ARCHITECTURES = {"published": PUBLISHED, "spatial": SPATIAL}


def from_metadata(metadata: Mapping[str, Any], where: str) -> Architecture:
    """The architecture that a refiner's file names; files that name none, as all did before 0.2, are published ones.

    Parts that a file says nothing of are older than their choice: they are the published ones too.

    Raises:
        ValueError: it has parts that this version does not know.
    """
    said = metadata.get("architecture", asdict(PUBLISHED))
    if not isinstance(said, Mapping):
        raise ValueError(f"{where} holds a refiner with an architecture of {said!r}, expected its parts; train it anew")
    parts = dict(said)
    if parts.get("smoothed") is True:  # said while there were pyramids without
        del parts["smoothed"]
    parts = {"pyramid": PUBLISHED.pyramid, "cells": PUBLISHED.cells, "blocks": PUBLISHED.blocks, **parts}
    known = [field.name for field in fields(Architecture)]
    what = [name for name in sorted(parts) if name not in known]
    what += [f"{name} {parts.get(name)!r}" for name, choice in CHOICES.items() if parts.get(name) not in choice]
    if what:
        raise ValueError(
            f"{where} holds a refiner with {', '.join(what)}; this version knows {', '.join(known)}: update refinebox"
        )
    return Architecture(**parts)
