"""Detections as COCO result rows: arrays that every evaluation and analysis reads."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from refinebox.data.annotations import CocoData

if TYPE_CHECKING:  # rows of a file need no torch
    from refinebox.detection.output import Detections
    from refinebox.evaluation.link import Link

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]
Rows = Floats  # [N, 7] image id, x, y, width, height (pixels), score, category id


def top(rows: Rows, limit: int, *, each_category: bool) -> Bools:
    """``[N]`` which rows are among the ``limit`` best of their image, or of their image and category."""
    category = rows[:, 6] if each_category else np.zeros(len(rows))
    order = np.lexsort((-rows[:, 5], category, rows[:, 0]))
    new = np.ones(len(rows), dtype=np.bool_)
    new[1:] = (np.diff(rows[order, 0]) != 0) | (np.diff(category[order]) != 0)
    place = np.arange(len(rows))
    start = np.maximum.accumulate(np.where(new, place, 0))
    kept = np.empty(len(rows), dtype=np.bool_)
    kept[order] = place - start < limit
    return kept


def check_rows(data: CocoData, rows: Rows) -> None:
    """Raises ValueError for rows that an evaluator would take for plain misses."""
    unbounded = ~np.isfinite(rows).all(1)
    if unbounded.any():
        raise ValueError(
            f"a detection in image {rows[unbounded][0, 0]:.0f} is not finite; check the detector's weights, "
            "or train its refiner at a lower learning rate"
        )
    for what, column, known in (
        ("image", 0, [entry["id"] for entry in data.images]),
        ("category", 6, list(data.categories)),
    ):
        unknown = np.setdiff1d(rows[:, column], known)
        if len(unknown):
            raise ValueError(
                f"detections name {what} ids that the data does not have: {', '.join(f'{i:.0f}' for i in unknown[:5])}"
            )


def to_rows(detections: Sequence["Detections"], image_ids: Sequence[int], link: "Link") -> Rows:
    """COCO result rows ``[N, 7]``; detections of categories that the data does not have are left out."""
    import torch

    rows = [np.empty((0, 7))]
    for image_id, found in zip(image_ids, detections, strict=True):
        x0, y0, x1, y1 = found.boxes.double().cpu().unbind(1)
        labels = torch.tensor([link.data_ids.get(label, -1) for label in found.labels.tolist()])
        images = torch.full_like(x0, image_id)
        table = torch.stack(
            [images, x0, y0, x1 - x0, y1 - y0, found.scores.double().cpu(), labels.double()], dim=1
        )  # [N, 7]
        rows.append(table[labels >= 0].numpy())
    return np.concatenate(rows)


def to_results(rows: Rows, data: CocoData | None = None) -> list[dict[str, Any]]:
    """COCO's results format, as every COCO tool reads it, with the ids that the annotation file of ``data`` has."""
    images, categories = (data.original_images, data.original_categories) if data else ({}, {})
    return [
        {
            "image_id": images.get(int(row[0]), int(row[0])),
            "category_id": categories.get(int(row[6]), int(row[6])),
            "bbox": [round(x, 3) for x in row[1:5]],
            "score": round(row[5], 6),
        }
        for row in rows.tolist()
    ]
