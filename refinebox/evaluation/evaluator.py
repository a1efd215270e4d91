"""Detections to COCO results to AP, before and after refinement from one forward pass."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from faster_coco_eval import COCO, COCOeval_faster
from numpy.typing import NDArray

from refinebox import distributed
from refinebox.data.batches import Batch, CocoData, CocoDataset, cut, loaded
from refinebox.data.categories import Matching, match_categories
from refinebox.detection.detector import Detections, Detector, DetectorOutput
from refinebox.evaluation.garbage import collection_paused
from refinebox.evaluation.lvis import frequency_groups
from refinebox.progress import track
from refinebox.refinement.refiner import RefinedDetector, Refiner

METRICS = {"AP": 0, "AP50": 1, "AP75": 2, "APs": 3, "APm": 4, "APl": 5, "AR": 8}  # places in COCO's twelve numbers
Metrics = dict[str, float | None]
Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]
Rows = Floats  # [N, 7] image id, x, y, width, height (pixels), score, category id


@dataclass(frozen=True)
class Link:
    """A detector and a data set whose categories have been matched.

    Attributes:
        data_ids: the data's category id of each of the detector's, which is what results are written with.
        columns: the detector's score column of each of the data's category ids.
        width: how many score columns the detector has.
    """

    data_ids: Mapping[int, int]
    columns: Mapping[int, int]
    width: int

    @classmethod
    def between(cls, detector: Detector, data: CocoData, by: Matching = "check") -> "Link":
        """Raises ValueError where the categories differ; see :func:`refinebox.data.categories.match_categories`."""
        matched = match_categories(data.categories, detector.category_ids, detector.category_names, by)
        column_of = {category_id: column for column, category_id in enumerate(detector.category_ids)}
        return cls(
            data_ids={detector_id: data_id for data_id, detector_id in matched.items()},
            columns={data_id: column_of[detector_id] for data_id, detector_id in matched.items()},
            width=len(detector.category_ids),
        )

    def categories(self, data: CocoData) -> list[dict[str, Any]]:
        """Id and name in the data of every score column in turn; empty where the data has none for some column."""
        ids = sorted(self.columns, key=self.columns.__getitem__)
        if [self.columns[category_id] for category_id in ids] != list(range(self.width)):
            return []
        return [{"id": category_id, "name": data.categories[category_id]} for category_id in ids]


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


def evaluation_batches(
    detector: Detector,
    data: CocoData,
    link: Link,
    *,
    batch_size: int,
    workers: int,
    description: str,
    strict: bool = True,
) -> Any:
    """This process's share of the batches, in which every image of ``data`` occurs once, with progress shown."""
    profile = detector.profile
    dataset = CocoDataset(
        data, link.columns, short_side=profile.short_side, long_side=profile.long_side, layout=profile.layout
    )
    dataset.strict = strict
    pieces = cut(range(len(dataset)), batch_size)[distributed.rank() :: distributed.processes()]
    loader = loaded(dataset, pieces, workers, next(detector.parameters()).device)
    return track(loader, description, len(pieces))


def combined(found: list[dict[str, Rows]]) -> dict[str, Rows]:
    """The rows of every batch, by name, from all processes and in the data's order."""
    everything = distributed.gathered(found)
    names = {name: None for part in everything for name in part}
    return {name: np.concatenate([part[name] for part in everything if part]) for name in names}


def to_rows(detections: Sequence[Detections], image_ids: Sequence[int], link: Link) -> Rows:
    """COCO result rows ``[N, 7]``; detections of categories that the data does not have are left out."""
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


def to_results(rows: Rows) -> list[dict[str, Any]]:
    """COCO's results format, as every COCO tool reads it."""
    return [
        {
            "image_id": int(row[0]),
            "category_id": int(row[6]),
            "bbox": [round(x, 3) for x in row[1:5]],
            "score": round(row[5], 6),
        }
        for row in rows.tolist()
    ]


def detect(
    detector: Detector,
    data: CocoData,
    link: Link,
    *,
    batch_size: int = 1,
    workers: int = 0,
    description: str = "evaluate",
    others: Mapping[str, Refiner] | None = None,
    unreadable: list[str] | None = None,
) -> dict[str, Rows]:
    """COCO result rows of every image: ``before`` and, for a :class:`RefinedDetector`, ``after``.

    Args:
        detector, data, link: what is detected where.
        batch_size: images in a batch.
        workers: processes that read images.
        description: of the progress.
        others: further refiners of the same detector, which add their rows under their names.
        unreadable: gets the reason for each image that cannot be read, which then has no rows; without it, such an
            image is an error.

    Raises:
        FileNotFoundError, ValueError: an image cannot be read, or none can; the message names it.
    """
    missed: list[str] = []
    strict = unreadable is None
    device = next(detector.parameters()).device
    found: list[dict[str, Rows]] = []
    for batch in evaluation_batches(
        detector, data, link, batch_size=batch_size, workers=workers, description=description, strict=strict
    ):
        batch = batch.to(device)
        found.append({})
        missed += batch.unreadable
        if not batch.image_ids:
            continue
        for name, output in stages(detector, batch, others).items():
            detections = detector.postprocess(detector.scores(output.logits), output.boxes, batch.original_sizes)
            found[-1][name] = to_rows(detections, batch.image_ids, link)
    missed = distributed.gathered(missed)
    if len(missed) == len(data.images):
        raise ValueError(f"none of {len(missed)} images could be read: {min(missed)}")
    if unreadable is not None:
        unreadable += missed
    return combined(found)


def evaluate(
    detector: Detector,
    data: CocoData,
    link: Link,
    *,
    batch_size: int = 1,
    workers: int = 0,
    others: Mapping[str, Refiner] | None = None,
    unreadable: list[str] | None = None,
) -> dict[str, Metrics]:
    """AP and its kin of all that :func:`detect` gives, from one forward pass; arguments and errors are its own."""
    rows = detect(detector, data, link, batch_size=batch_size, workers=workers, others=others, unreadable=unreadable)
    return {name: coco_ap(data, found) for name, found in rows.items()}


def stages(detector: Detector, batch: Batch, others: Mapping[str, Refiner] | None = None) -> dict[str, DetectorOutput]:
    """The outputs of one forward pass: ``before`` and, for a refined detector, ``after`` and what ``others`` add."""
    if isinstance(detector, RefinedDetector):
        before, after = detector.before_and_after(batch.images, batch.sizes)
        more = {name: detector.refined(before, batch.sizes, refiner) for name, refiner in (others or {}).items()}
        return {"before": before, "after": after, **more}
    return {"before": detector(batch.images, batch.sizes)}


def _silent(*_: object) -> None:
    """faster-coco-eval's table, which nobody asked for."""
