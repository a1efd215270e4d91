"""What an adapter says about its detector that the tensors cannot tell."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from refinebox.data.images import Layout as Layout  # adapters know this module alone

Precision = Literal["float32", "bfloat16"]


@dataclass(frozen=True)
class Profile:
    """What the tensors of a detector cannot tell.

    Attributes:
        name: the name in the table, or the file's.
        family: module of ``refinebox.adapters`` that builds it.
        classification: ``sigmoid`` scores every (query, category) pair; ``softmax`` has a last no-object column.
        category_ids: category id of each score column; empty for "the column is the id", as the DETR authors do it.
        category_names: names of the ids that have one; empty for COCO's where the columns are COCO's 91.
        short_side: images are resized to this short side, in pixels,
        long_side: unless the long side would pass this.
        settings: keyword arguments of the network.
        layout: whose code the detector comes from, which decides details of pre- and post-processing: image sizes
            are rounded as there, and detrex's detections are clipped to the image and dropped where nothing is left.
        detections: (query, category) pairs that a sigmoid detector returns.
    """

    name: str
    family: str
    classification: Literal["sigmoid", "softmax"] = "sigmoid"
    category_ids: tuple[int, ...] = ()
    category_names: Mapping[int, str] = field(default_factory=dict)
    short_side: int = 800
    long_side: int = 1333
    settings: Mapping[str, Any] = field(default_factory=dict)
    layout: Layout = "authors"
    detections: int = 300
