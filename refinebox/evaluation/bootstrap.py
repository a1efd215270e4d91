"""Is a difference of AP more than the luck of these images? Paired bootstrap over images."""

from dataclasses import dataclass

import numpy as np

from refinebox.data.annotations import CocoData
from refinebox.evaluation.backends import DETECTIONS, LVIS_DETECTIONS
from refinebox.evaluation.overlaps import Objects, Overlaps, Pass
from refinebox.evaluation.precision import Ranking
from refinebox.evaluation.rows import Ints, Rows, top
from refinebox.progress import track

THRESHOLDS = np.linspace(0.5, 0.95, 10)  # COCO's


@dataclass(frozen=True)
class Interval:
    """A difference of AP in points over resampled images: its mean, and the middle 95 % of it."""

    mean: float
    low: float
    high: float
    resamples: int


class Resampled:
    """Detections that are matched once and evaluated on any resample of the images."""

    def __init__(self, rows: Rows, objects: Objects, images: Ints) -> None:
        self.categories = np.unique(objects.category[~objects.crowd])
        lvis = objects.federated is not None
        rows = rows[top(rows, LVIS_DETECTIONS if lvis else DETECTIONS, each_category=not lvis)]
        rows = rows[np.isin(rows[:, 6], self.categories)]
        overlaps = Overlaps.between(rows, objects)
        hits = np.stack([overlaps.match((Pass(float(threshold)),)) >= 0 for threshold in THRESHOLDS])
        excused = np.stack([overlaps.excused(float(threshold)) for threshold in THRESHOLDS])
        columns = np.searchsorted(self.categories, rows[:, 6].astype(np.int64))
        self.ranking = Ranking(overlaps.rank, columns, hits, excused & ~hits, len(self.categories))
        self.image = np.searchsorted(images, rows[:, 0].astype(np.int64))  # [N] place of each detection's image
        self.object_image = np.searchsorted(images, objects.image[~objects.crowd])
        self.object_category = np.searchsorted(self.categories, objects.category[~objects.crowd])

    def ap(self, counts: Ints) -> float:
        """AP in points when each image counts ``counts`` times, over the categories that are among them."""
        weight = counts.astype(np.float64)
        weights = weight[self.object_image]
        positives = np.bincount(self.object_category, weights, minlength=len(self.categories)).astype(np.float64)
        precision = self.ranking.average_precision(positives, weight[self.image])[:, positives > 0]
        return 100 * float(precision.mean()) if precision.size else 0.0


def difference(
    data: CocoData, before: Rows, after: Rows, *, lvis: bool = False, resamples: int = 1000, seed: int = 0
) -> Interval:
    """AP, as COCO's or LVIS' evaluation has it, of ``after`` less that of ``before``, both ``[N, 7]``.

    Both are evaluated on the same resampled images each time.
    """
    images = np.unique([entry["id"] for entry in data.images])
    objects = Objects.of(data, lvis=lvis)
    old, new = (Resampled(rows, objects, images) for rows in (before, after))
    random = np.random.default_rng(seed)
    draws = []
    for _ in track(range(resamples), "bootstrap", resamples):
        counts = np.bincount(random.integers(len(images), size=len(images)), minlength=len(images))
        draws.append(new.ap(counts) - old.ap(counts))
    low, high = np.quantile(draws, (0.025, 0.975))
    return Interval(float(np.mean(draws)), float(low), float(high), resamples)
