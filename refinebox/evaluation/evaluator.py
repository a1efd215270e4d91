"""COCO's evaluation: result rows against the objects give AP."""

from dataclasses import dataclass

import numpy as np

from refinebox.data.annotations import CocoData
from refinebox.evaluation import backends
from refinebox.evaluation.backends import LVIS_DETECTIONS, Backend
from refinebox.evaluation.lvis import frequency_groups
from refinebox.evaluation.rows import Floats, Rows, check_rows, top

METRICS = {"AP": 0, "AP50": 1, "AP75": 2, "APs": 3, "APm": 4, "APl": 5, "AR": 8}  # places in COCO's twelve numbers
Metrics = dict[str, float | None]


@dataclass(frozen=True)
class Evaluation:
    """What COCO's evaluation says about one set of detections, in points, 0 to 100; None where there is no object.

    Attributes:
        metrics: means over the categories.
        per_category: the same for each category id alone.
        per_threshold: AP at each IoU threshold, 0.50 to 0.95.
    """

    metrics: Metrics
    per_category: dict[int, Metrics]
    per_threshold: dict[float, float | None]


class Evaluator:
    """COCO's evaluation against one ground truth, which is parsed once and shared by all calls.

    It runs the fastest library that is installed, see :mod:`refinebox.evaluation.backends`; each gives pycocotools'
    numbers but for rounding (below 1e-12 points). No detections is an AP of 0.

    Args:
        data: the objects.
        lvis: evaluate as LVIS does (federated annotations, 300 detections an image) and add AP of rare, common and
            frequent categories.
        backend: another library than the fastest.

    Raises:
        ValueError: ``lvis`` is set and the annotations lack what LVIS adds to COCO's.
    """

    def __init__(self, data: CocoData, *, lvis: bool = False, backend: type[Backend] | None = None) -> None:
        self.data, self.lvis = data, lvis
        self.groups = frequency_groups(data) if lvis else {}
        self.backend = (backend or backends.best())(data, lvis=lvis)

    def __call__(self, rows: Rows) -> Evaluation:
        """Raises ValueError where a row is not finite or names an image or category that the data does not have."""
        check_rows(self.data, rows)
        if self.lvis:
            rows = rows[top(rows, LVIS_DETECTIONS, each_category=False)]
        precision, recall = self.backend(rows)  # [T, R, K, A], [T, K, A]
        categories = sorted(self.data.categories)
        groups = {name: _mean(precision[:, :, np.isin(categories, ids), 0]) for name, ids in self.groups.items()}
        return Evaluation(
            _metrics(precision, recall) | groups,
            {
                category_id: _metrics(precision[:, :, [place]], recall[:, [place]])
                for place, category_id in enumerate(categories)
            },
            {round(0.5 + 0.05 * place, 2): _mean(precision[place, :, :, 0]) for place in range(len(precision))},
        )


def coco_ap(data: CocoData, rows: Rows) -> Metrics:
    """COCO's AP, AP50, AP75, APs, APm, APl and AR (at 100 detections) in points, 0 to 100.

    These are pycocotools' numbers but for rounding (below 1e-12 points). A value is None where the data has no object
    of that size. No detections at all is an AP of 0.

    Raises:
        ValueError: a box or score is not finite, or a row names an image or category that the data does not have.
    """
    return Evaluator(data)(rows).metrics


def points(metrics: Metrics) -> float:
    """AP in points; 0 where the validation images hold no object at all."""
    return metrics["AP"] or 0.0


def _metrics(precision: Floats, recall: Floats) -> Metrics:
    """Of precision ``[T, R, K, A]`` and recall ``[T, K, A]``; A is all, small, medium and large."""
    precisions = (
        precision[..., 0],
        precision[0, ..., 0],
        precision[5, ..., 0],
        *(precision[..., size] for size in (1, 2, 3)),
    )
    return dict(zip(METRICS, map(_mean, (*precisions, recall[..., 0])), strict=True))


def _mean(values: Floats) -> float | None:
    """In points; COCO writes -1 where there is nothing to find."""
    known = values[values > -1]
    return 100 * float(known.mean()) if len(known) else None
