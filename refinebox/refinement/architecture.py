"""Which parts a refiner is made of: named sets, and how they are written to a file and read back."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Literal, Self

Moves = Literal["logit", "relative"]
COARSE = 8  # a stride; a refiner for coarser maps looks at the pixels as well


@dataclass(frozen=True)
class Architecture:
    """The parts of a refiner. :data:`PUBLISHED` is the paper's; :data:`SPATIAL` is what docs/results.md found best.

    Attributes:
        smoothed: a 3x3 convolution ends every level of the pyramid.
        placed: the head reads what lies where inside a box, beside the mean over it.
        enlargement: side of the pooled area over the side of the box, about its centre.
        moves: of the ``logit`` of each coordinate, or ``relative`` to the box's own sides. Boxes moved the second way
            are cut at the borders of the image in the end, and their losses are relative to the object's sides.
        cells: of a side that a box is pooled in; of 14 a learned convolution makes 7, where the paper takes means.
        stem: a level of stride 4 is made from the pixels, for detectors whose maps are coarse.
    """

    smoothed: bool = True
    placed: bool = True
    enlargement: float = 1.5
    moves: Moves = "relative"
    cells: int = 14
    stem: bool = False

    @property
    def name(self) -> str:
        """What it is called in :data:`ARCHITECTURES`, or ``custom``."""
        plain = replace(self, stem=False)
        return next((name for name, other in ARCHITECTURES.items() if other == plain), "custom")

    def suited(self, strides: Sequence[int]) -> Self:
        """The same, with a stem if it is the spatial one and the finest of the detector's maps is coarser than 8."""
        return replace(self, stem=self.stem or (self == SPATIAL and min(strides, default=0) > COARSE))


PUBLISHED = Architecture(placed=False, enlargement=1.0, moves="logit", cells=7)
SPATIAL = Architecture()
ARCHITECTURES = {"published": PUBLISHED, "spatial": SPATIAL}


def from_metadata(metadata: Mapping[str, Any], where: str) -> Architecture:
    """The architecture that a refiner's file names; files that name none, as all did before 0.2, are published ones.

    Raises:
        ValueError: it has parts that this version does not know.
    """
    parts = metadata.get("architecture")
    if parts is None:
        return PUBLISHED
    known = [field.name for field in fields(Architecture)]
    unknown = sorted(set(parts) - set(known))
    if unknown or parts.get("moves") not in ("logit", "relative"):
        what = ", ".join(unknown) or f"moves {parts.get('moves')!r}"
        raise ValueError(
            f"{where} holds a refiner with {what}; this version knows {', '.join(known)}: update refinebox"
        )
    return Architecture(**{"cells": 7, **parts})
