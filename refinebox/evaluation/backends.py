"""Who counts precision and recall: hotcoco where it is installed, faster-coco-eval where it is not.

Both give pycocotools' numbers, which the tests hold them to: hotcoco bit for bit, faster-coco-eval all of recall and
precision to 2.2e-16, which pycocotools adds to every denominator. hotcoco takes arrays, and is thirteen times as fast.
"""

from collections.abc import Iterable
from importlib.metadata import version
from typing import Any, Protocol

import numpy as np

from refinebox.data.annotations import FEDERATED, CocoData
from refinebox.evaluation.garbage import collection_paused
from refinebox.evaluation.rows import Floats, Ints, Rows

DETECTIONS, LVIS_DETECTIONS = 100, 300  # of an image and category in COCO, of an image in LVIS


class Backend(Protocol):
    """An evaluator of one data set.

    Attributes:
        name: the library and its version.
    """

    name: str

    def __init__(self, data: CocoData, *, lvis: bool) -> None: ...

    def __call__(self, rows: Rows) -> tuple[Floats, Floats]:
        """Precision ``[T, R, K, A]`` and recall ``[T, K, A]`` of ``[N, 7]`` detections, as COCO's evaluation has them.

        T are the IoU thresholds, R the 101 recalls, K the category ids in ascending order, A all, small, medium and
        large objects; -1 where there is nothing to find.
        """


def best() -> type[Backend]:
    """The fastest that is installed."""
    try:
        from hotcoco import COCO
    except ImportError:
        return FasterCocoEval
    return Hotcoco if hasattr(COCO, "from_arrays") else FasterCocoEval  # which early versions lack


class Hotcoco:
    """hotcoco, fed with arrays."""

    def __init__(self, data: CocoData, *, lvis: bool) -> None:
        import hotcoco

        self.name, self.lvis, self.library = f"hotcoco {version('hotcoco')}", lvis, hotcoco
        # it takes no negative ids; places keep the order by which pycocotools breaks ties
        self.images = np.unique(np.array([entry["id"] for entry in data.images], dtype=np.int64))
        self.categories = np.unique(np.array(list(data.categories), dtype=np.int64))
        objects = data.annotations
        self.truth = hotcoco.COCO.from_arrays(
            [self._image(entry) for entry in data.images],
            [{"id": place, "name": str(place)} for place in range(len(self.categories))],
            _places(self.images, (entry["image_id"] for entry in objects)),
            _places(self.categories, (entry["category_id"] for entry in objects)),
            np.array([entry["bbox"] for entry in objects], dtype=np.float64).reshape(-1, 4),
            ids=np.array([entry["id"] for entry in objects], dtype=np.int64),
            area=np.array([entry["area"] for entry in objects], dtype=np.float64),
            iscrowd=np.array([entry["iscrowd"] for entry in objects], dtype=np.int64),
        )

    def __call__(self, rows: Rows) -> tuple[Floats, Floats]:
        placed = rows.copy()
        placed[:, 0] = np.searchsorted(self.images, rows[:, 0])
        placed[:, 6] = np.searchsorted(self.categories, rows[:, 6])
        evaluation = self.library.COCOeval(self.truth, self.truth.load_res(placed), "bbox", lvis_style=self.lvis)
        evaluation.params.max_dets = [LVIS_DETECTIONS if self.lvis else DETECTIONS]
        evaluation.evaluate()
        evaluation.accumulate()
        return _last(evaluation.eval)

    def _image(self, entry: dict[str, Any]) -> dict[str, Any]:
        found: dict[str, Any] = {"id": int(np.searchsorted(self.images, entry["id"])), "width": 0, "height": 0}
        if self.lvis:
            known = {field: set(entry[field]).intersection(self.categories.tolist()) for field in FEDERATED}
            found |= {field: _places(self.categories, sorted(ids)).tolist() for field, ids in known.items()}
        return found


class FasterCocoEval:
    """faster-coco-eval, fed with COCO's JSON."""

    def __init__(self, data: CocoData, *, lvis: bool) -> None:
        from faster_coco_eval import COCO, COCOeval_faster

        self.name, self.lvis = f"faster-coco-eval {version('faster-coco-eval')}", lvis
        self.index, self.evaluation = COCO, COCOeval_faster
        content = data.coco()
        for category in content["categories"]:
            category |= {"frequency": data.frequencies[category["id"]]} if lvis else {}
        self.truth = COCO(content)
        self.rows: Rows = np.empty((0, 7))
        self.parsed: list[dict[str, Any]] = []

    @collection_paused()
    def __call__(self, rows: Rows) -> tuple[Floats, Floats]:
        found = self.index()
        found.dataset = {**self.truth.dataset, "annotations": self._annotations(rows)}
        found.createIndex()
        evaluation = self.evaluation(self.truth, found, "bbox", print_function=_silent, lvis_style=self.lvis)
        evaluation.params.maxDets = [LVIS_DETECTIONS if self.lvis else DETECTIONS]
        evaluation.evaluate()
        evaluation.accumulate()
        return _last(evaluation.eval)

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


def _places(ids: Ints, values: Iterable[int]) -> Ints:
    """``[N]`` where each value stands among the sorted ids."""
    return np.searchsorted(ids, np.fromiter(values, dtype=np.int64))


def _last(found: Any) -> tuple[Floats, Floats]:
    """Precision and recall at the one limit of detections that was asked for."""
    return found["precision"][..., 0], found["recall"][..., 0]


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
