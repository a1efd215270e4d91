"""COCO's interpolated average precision from arrays, for what is computed a thousand times over.

Reported AP comes from ``coco_ap``; this is for resampled images and TIDE's single threshold, and equals it to rounding.
"""

import numpy as np

from refinebox.evaluation.rows import Bools, Floats, Ints

RECALLS = np.linspace(0, 1, 101)  # COCO's, which are not quite 0.01 apart in floating point


class Ranking:
    """Detections in score order within each category, and which of them hit at each of T IoU thresholds.

    Args:
        rank: ``[N]`` place in score order.
        category: ``[N]`` indices, 0 to K - 1.
        hits: ``[T, N]`` detections that found an object.
        ignored: ``[T, N]`` detections that count neither way.
        categories: K.
    """

    def __init__(self, rank: Ints, category: Ints, hits: Bools, ignored: Bools, categories: int) -> None:
        self.order = np.lexsort((rank, category))
        hits, ignored, category = hits[:, self.order], ignored[:, self.order], category[self.order]
        self.shape = len(hits), categories
        self.start = np.searchsorted(category, np.arange(categories))  # [K] where each category begins
        threshold, self.hit = np.nonzero(hits & ~ignored)  # [H] flat, ordered by threshold, category, score
        self.category = category[self.hit]
        self.curve = threshold * categories + self.category
        self.first = np.searchsorted(self.curve, self.curve)  # [H] the first hit of the same curve
        skipped_threshold, self.skipped = np.nonzero(ignored)
        size = len(category) + 1
        keys = skipped_threshold * size + self.skipped
        self.skipped_until = np.searchsorted(keys, threshold * size + self.hit)
        self.skipped_before = np.searchsorted(keys, threshold * size + self.start[self.category])

    def average_precision(self, positives: Floats, weight: Floats | None = None) -> Floats:
        """``[T, K]`` AP, 0 to 1, NaN where a category has no objects.

        Args:
            positives: ``[K]`` number of objects.
            weight: ``[N]`` how often each detection counts, once by default.
        """
        weight = np.ones(len(self.order)) if weight is None else weight[self.order]
        seen, skipped = (np.append(0.0, np.cumsum(part)) for part in (weight, weight[self.skipped]))
        true = np.append(0.0, np.cumsum(weight[self.hit]))
        found = true[1:] - true[self.first]  # [H] true positives of the curve so far, this one included
        counted = seen[self.hit + 1] - seen[self.start[self.category]]
        counted -= skipped[self.skipped_until] - skipped[self.skipped_before]
        usable = found > 0
        precision = np.divide(found, counted, out=np.zeros_like(found), where=usable)
        recall = np.divide(found, positives[self.category], out=np.zeros_like(found), where=usable)
        # how many of the 101 recalls are first reached at this hit
        reached = np.where(usable, np.searchsorted(RECALLS, recall, side="right"), 0)
        new = np.diff(reached, prepend=0)
        opening = self.first == np.arange(len(self.first))
        new[opening] = reached[opening]
        # the best precision from here on; curves are kept apart by a step of 2, because precision ends at 1
        step = 2.0 * (self.shape[0] * self.shape[1] - self.curve)
        envelope = np.maximum.accumulate((precision + step)[::-1])[::-1] - step
        area = np.bincount(self.curve, new * envelope, minlength=self.shape[0] * self.shape[1])
        return np.where(positives > 0, area.reshape(self.shape) / len(RECALLS), np.nan)
