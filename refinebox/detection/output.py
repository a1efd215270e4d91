"""What a detector says about a batch, and what was found in an image.

Letters in shape comments: B images, Q queries, K categories, C channels, H and W pixels or cells.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from refinebox.detection.extras import library


@dataclass(frozen=True)
class DetectorOutput:
    """What a detector says about a padded batch.

    Attributes:
        features: backbone maps, fine to coarse, each ``[B, C_l, H_l, W_l]``.
        boxes: ``[B, Q, 4]`` cxcywh, fractions of the unpadded image.
        logits: ``[B, Q, K]``, or ``[B, Q, K + 1]`` with no-object last, raw; minus infinity where a row is not used.
        rescored: ``[B, Q, K]`` probabilities that stand for those of the logits, where something knows better.
        images: ``[B, 3, H, W]`` what the detector saw, normalised and padded; :class:`Detector` adds it.
    """

    features: tuple[Tensor, ...]
    boxes: Tensor
    logits: Tensor
    rescored: Tensor | None = None
    images: Tensor | None = None


@dataclass(frozen=True)
class Detections:
    """What was found in one image.

    Attributes:
        boxes: ``[N, 4]`` xyxy, pixels of the original image, which they may pass.
        scores: ``[N]`` between 0 and 1.
        labels: ``[N]`` category ids.
        queries: ``[N]`` int64, the query that each comes from, by which before and after can be paired.
    """

    boxes: Tensor
    scores: Tensor
    labels: Tensor
    queries: Tensor | None = None

    def to_supervision(self, names: Mapping[int, str] | None = None) -> Any:
        """The same as ``supervision.Detections``, which can be drawn, tracked and counted.

        ``class_id`` are the category ids, and ``data["query"]`` the queries.

        Args:
            names: of category ids, as a detector's ``category_names``; they become ``data["class_name"]``. An id
                without a name is written as a number.

        Raises:
            ValueError: supervision cannot be imported.
        """
        supervision = library("supervision", "supervision", "to_supervision")
        labels = self.labels.cpu().numpy()
        data = {} if self.queries is None else {"query": self.queries.cpu().numpy()}
        if names is not None:
            data["class_name"] = np.array([names.get(label, str(label)) for label in labels.tolist()], dtype=str)
        boxes, scores = self.boxes.cpu().numpy(), self.scores.cpu().numpy()
        return supervision.Detections(xyxy=boxes, confidence=scores, class_id=labels, data=data)

    @classmethod
    def from_supervision(cls, detections: Any) -> Self:
        """What ``supervision.Detections`` of one image say, on the CPU; masks and tracks are left out.

        Raises:
            ValueError: they have no confidence or no class ids.
        """
        needed = {"confidence": detections.confidence, "class_id": detections.class_id}
        missing = [name for name, values in needed.items() if values is None]
        if missing:
            raise ValueError(
                f"these detections of supervision have no {' and no '.join(missing)}; expected a score and a category "
                "id of every box"
            )
        query = detections.data.get("query")
        return cls(
            torch.tensor(detections.xyxy, dtype=torch.float32).reshape(-1, 4),
            torch.tensor(detections.confidence, dtype=torch.float32),
            torch.tensor(detections.class_id, dtype=torch.int64),
            None if query is None else torch.tensor(query, dtype=torch.int64),
        )
