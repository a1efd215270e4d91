"""Boxes that somebody else has found; they travel with their images and are flipped, cropped and resized with them."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import overload

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from torchvision.ops import box_convert

from refinebox.boxes import to_fractions

LEAST = 1e-9  # what a score of 0 counts as, because 0 marks rows that are not used


@dataclass(frozen=True)
class Found:
    """The proposals of one image file.

    Attributes:
        boxes: ``[N, 4]`` xyxy, pixels of the image file.
        scores: ``[N, K]`` between 0 and 1, a column for each of the detector's.
    """

    boxes: Tensor
    scores: Tensor

    def within(self, height: int, width: int) -> "Proposals":
        """The same for a detector that sees the whole image, whose sides are given in pixels; a batch of one."""
        boxes = to_fractions(self.boxes, torch.tensor([height, width]))
        return Proposals(boxes[None], self.scores[None])


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


def lacks(found: Found | None) -> bool:
    """Whether somebody should have said what is in an image, and has said that nothing is."""
    return found is not None and not len(found.boxes)


class RowsByImage(Mapping[int, Found]):
    """The detections of a results file as proposals, by image id; made when asked for, since scores take much room.

    An image without detections has none; one of another data set is not in it.

    Args:
        rows: ``[N, 7]`` image id, x, y, width, height (pixels of the image file), score and category id.
        image_ids: of the data set.
        columns: score column of each category id.
        width: how many columns the scores have.

    Raises:
        ValueError: a score is not between 0 and 1, or a category has no column.
    """

    def __init__(
        self, rows: NDArray[np.float64], image_ids: Sequence[int], columns: Mapping[int, int], width: int
    ) -> None:
        check_scores(rows[:, 5])
        labels, place = np.unique(rows[:, 6].astype(np.int64), return_inverse=True)
        unknown = [label for label in labels.tolist() if label not in columns]
        if unknown:
            raise ValueError(
                f"detections have labels {', '.join(map(str, unknown[:5]))}, which are none of the {width} categories; "
                f"known are {', '.join(map(str, list(columns)[:5]))}{' …' if len(columns) > 5 else ''}"
            )
        self.rows, self.image_ids, self.width = rows, image_ids, width
        self.columns = np.array([columns[label] for label in labels.tolist()], dtype=np.int64)[place.reshape(-1)]
        self.order = np.argsort(rows[:, 0], kind="stable")
        self.sorted = rows[self.order, 0]

    def __len__(self) -> int:
        return len(self.image_ids)

    def __iter__(self) -> Iterator[int]:
        return iter(self.image_ids)

    def __getitem__(self, image_id: int) -> Found:
        own = self.places(image_id)
        query = self.queries(own)
        count = int(query.max(initial=-1)) + 1
        boxes = torch.empty(count, 4, dtype=torch.float64)
        boxes[query] = torch.from_numpy(self.rows[own, 1:5])
        scores = torch.zeros(count, self.width)
        scores[query, self.columns[own]] = torch.from_numpy(self.rows[own, 5].clip(LEAST)).float()
        return Found(box_convert(boxes, "xywh", "xyxy").float(), scores)

    def places(self, image_id: int) -> NDArray[np.int64]:
        """``[n]`` which rows are of an image, in the file's order."""
        first, last = np.searchsorted(self.sorted, image_id, "left"), np.searchsorted(self.sorted, image_id, "right")
        own: NDArray[np.int64] = self.order[first:last]
        return own

    def queries(self, own: NDArray[np.int64]) -> NDArray[np.int64]:
        """``[n]`` the query that each row of an image becomes: one for rows of the same box with different labels."""
        seen: Counter[tuple[float, ...]] = Counter()
        numbers: dict[tuple[float, ...], int] = {}
        query = []
        for *box, category in self.rows[own][:, [1, 2, 3, 4, 6]].tolist():
            repeat = seen[(*box, category)]  # the same box with the same label again stays a detection of its own
            seen[(*box, category)] += 1
            query.append(numbers.setdefault((*box, repeat), len(numbers)))
        return np.array(query, dtype=np.int64)


class OneByOne(Sequence[Found]):
    """The proposals of images in turn, each made when it is asked for and not kept.

    Args:
        found: by image id.
        image_ids: in turn.
    """

    def __init__(self, found: Mapping[int, Found], image_ids: Sequence[int]) -> None:
        self.found, self.image_ids = found, image_ids

    def __len__(self) -> int:
        return len(self.image_ids)

    @overload
    def __getitem__(self, place: int) -> Found: ...

    @overload
    def __getitem__(self, place: slice) -> "OneByOne": ...

    def __getitem__(self, place: int | slice) -> "Found | OneByOne":
        if isinstance(place, slice):
            return OneByOne(self.found, self.image_ids[place])
        return self.found[self.image_ids[place]]


def check_scores(scores: NDArray[np.float64]) -> None:
    """Raises ValueError for scores that are no probabilities."""
    wrong = scores[(scores < 0) | (scores > 1)]
    if len(wrong):
        raise ValueError(
            f"the score of a detection is {wrong[0]:g}; expected scores between 0 and 1 ({len(wrong)} are not): divide "
            "percentages by 100, take the sigmoid of logits"
        )
