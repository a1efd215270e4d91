"""COCO's evaluation: result rows against the objects give AP."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from faster_coco_eval import COCO, COCOeval_faster

from refinebox.data.annotations import CocoData
from refinebox.evaluation.garbage import collection_paused
from refinebox.evaluation.lvis import frequency_groups
from refinebox.evaluation.rows import Floats, Ints, Rows, check_rows, top

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

    It runs faster-coco-eval, which gives pycocotools' numbers but for rounding (below 1e-12 points): recall is equal
    bit for bit, while pycocotools adds 2.2e-16 to the denominator of every precision. No detections is an AP of 0.

    Args:
        data: the objects.
        lvis: evaluate as LVIS does (federated annotations, 300 detections an image) and add AP of rare, common and
            frequent categories.

    Raises:
        ValueError: ``lvis`` is set and the annotations lack what LVIS adds to COCO's.
    """

    def __init__(self, data: CocoData, *, lvis: bool = False) -> None:
        self.data, self.lvis = data, lvis
        self.groups = frequency_groups(data) if lvis else {}
        content = data.coco()
        for category in content["categories"]:
            category |= {"frequency": data.frequencies[category["id"]]} if lvis else {}
        self.truth = COCO(content)
        self.rows: Rows = np.empty((0, 7))
        self.parsed: list[dict[str, Any]] = []

    @collection_paused()
    def __call__(self, rows: Rows) -> Evaluation:
        """Raises ValueError where a row is not finite or names an image or category that the data does not have."""
        check_rows(self.data, rows)
        if self.lvis:
            rows = rows[top(rows, 300, each_category=False)]
        found = COCO()
        found.dataset = {**self.truth.dataset, "annotations": self._annotations(rows)}
        found.createIndex()
        evaluation = COCOeval_faster(self.truth, found, "bbox", print_function=_silent, lvis_style=self.lvis)
        evaluation.params.maxDets = [300 if self.lvis else 100]
        evaluation.evaluate()
        evaluation.accumulate()
        precision = evaluation.eval["precision"][..., 0]  # [T, R, K, A]
        recall = evaluation.eval["recall"][..., 0]  # [T, K, A]
        groups = {
            name: _mean(precision[:, :, np.isin(evaluation.params.catIds, ids), 0]) for name, ids in self.groups.items()
        }
        return Evaluation(
            _metrics(precision, recall) | groups,
            {
                int(category_id): _metrics(precision[:, :, [place]], recall[:, [place]])
                for place, category_id in enumerate(evaluation.params.catIds)
            },
            {
                round(float(threshold), 2): _mean(precision[place, :, :, 0])
                for place, threshold in enumerate(evaluation.params.iouThrs)
            },
        )

    def _annotations(self, rows: Rows) -> list[dict[str, Any]]:
        """Detections as the evaluator reads them. What is as in the call before is not made again: it takes longest."""
        if len(rows) == len(self.rows):
            changed = np.flatnonzero((rows != self.rows).any(1))
            for place, annotation in zip(changed.tolist(), _annotations(rows[changed], changed + 1), strict=True):
                self.parsed[place] = annotation
        else:
            self.parsed = _annotations(rows, np.arange(1, len(rows) + 1))
        self.rows = rows.copy()
        return self.parsed


def coco_ap(data: CocoData, rows: Rows) -> Metrics:
    """COCO's AP, AP50, AP75, APs, APm, APl and AR (at 100 detections) in points, 0 to 100.

    Evaluated by faster-coco-eval, which gives pycocotools' numbers but for rounding (below 1e-12 points). A value is
    None where the data has no object of that size. No detections at all is an AP of 0.

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


def _annotations(rows: Rows, ids: Ints) -> list[dict[str, Any]]:
    areas = (rows[:, 3] * rows[:, 4]).tolist()
    images, categories = (rows[:, column].astype(np.int64).tolist() for column in (0, 6))
    columns = zip(ids.tolist(), images, categories, rows[:, 1:5].tolist(), rows[:, 5].tolist(), areas, strict=True)
    return [
        {"id": number, "image_id": image, "category_id": category, "bbox": box, "score": score, "area": area}
        for number, image, category, box, score, area in columns
    ]


def _silent(*_: object) -> None:
    """faster-coco-eval's table, which nobody asked for."""
