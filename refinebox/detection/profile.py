"""What an adapter says about its detector that the tensors cannot tell."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from refinebox.data.categories import COCO_NAMES as COCO_NAMES  # adapters know this floor alone
from refinebox.data.categories import ids_of as ids_of
from refinebox.data.input_format import MEAN as MEAN
from refinebox.data.input_format import STD as STD
from refinebox.data.input_format import InputFormat as InputFormat
from refinebox.detection.choice import Choice as Choice

Precision = Literal["float32", "bfloat16"]
Classification = Literal["sigmoid", "softmax", "probability"]
# whose code a detector and its checkpoint come from
Layout = Literal["authors", "detrex", "transformers", "mmdet2", "mmdet3"]


@dataclass(frozen=True)
class Profile:
    """What the tensors of a detector cannot tell.

    Attributes:
        name: the name in the table, or the file's.
        family: module of ``refinebox.adapters`` that builds it.
        classification: what the logits are: ``sigmoid`` scores every (query, category) pair; ``softmax`` has a last
            no-object column; ``probability`` means that they are the scores already.
        category_ids: category id of each score column; empty for "the column is the id", as the DETR authors do it.
        category_names: names of the ids that have one; empty for COCO's where the columns are COCO's 91.
        input: how images come in.
        settings: keyword arguments of the network.
        layout: whose code the detector comes from: detrex's detections are clipped to the image and dropped where
            nothing is left.
        choice: how detections are chosen; by default every query of a ``softmax`` detector, and 300 pairs of others.
    """

    name: str
    family: str
    classification: Classification = "sigmoid"
    category_ids: tuple[int, ...] = ()
    category_names: Mapping[int, str] = field(default_factory=dict)
    input: InputFormat = field(default_factory=InputFormat)
    settings: Mapping[str, Any] = field(default_factory=dict)
    layout: Layout = "authors"
    choice: Choice | None = None

    @property
    def final(self) -> Choice:
        """The choice, by default that of the classification."""
        return self.choice or Choice("queries" if self.classification == "softmax" else "pairs")
