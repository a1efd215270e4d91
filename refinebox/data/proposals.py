"""Boxes that somebody else has found; they travel with their images and are flipped, cropped and resized with them."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence


@dataclass(frozen=True)
class Found:
    """The proposals of one image file.

    Attributes:
        boxes: ``[N, 4]`` xyxy, pixels of the image file.
        scores: ``[N, K]`` between 0 and 1, a column for each of the detector's.
    """

    boxes: Tensor
    scores: Tensor


@dataclass(frozen=True)
class Proposals:
    """The proposals of a batch, for a detector that takes them instead of finding its own.

    Attributes:
        boxes: ``[B, Q, 4]`` cxcywh, fractions of the unpadded image.
        scores: ``[B, Q, K]`` between 0 and 1; all 0 in rows that are not used.
    """

    boxes: Tensor
    scores: Tensor

    @classmethod
    def of(cls, images: "Sequence[Proposals]") -> "Proposals":
        """A batch of single images ``[N, 4]`` and ``[N, K]``; those with fewer get rows that are not used."""
        boxes = pad_sequence([image.boxes for image in images], batch_first=True, padding_value=0.5)
        return cls(boxes, pad_sequence([image.scores for image in images], batch_first=True))

    def to(self, device: torch.device) -> "Proposals":
        """The same on ``device``."""
        return Proposals(self.boxes.to(device), self.scores.to(device))
