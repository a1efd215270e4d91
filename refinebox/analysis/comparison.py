"""Detections before and after refinement, on the images that both are of."""

from dataclasses import dataclass, replace

import numpy as np

from refinebox.evaluation import bootstrap
from refinebox.evaluation.evaluator import Evaluation, Evaluator
from refinebox.evaluation.rows import Rows


@dataclass(frozen=True)
class Comparison:
    """Detections before and after refinement.

    Attributes:
        before, after: their evaluations.
        perfect_box: that of the detections before, with perfect boxes.
        interval: of the difference of AP, by bootstrap over images.
    """

    before: Evaluation
    after: Evaluation
    perfect_box: Evaluation
    interval: bootstrap.Interval

    def headroom_closed(self) -> dict[str, float | None]:
        """(AP refined − AP) / (AP perfect box − AP) for every metric; None where perfect boxes gain nothing."""
        closed: dict[str, float | None] = {}
        for name, before in self.before.metrics.items():
            after, best = self.after.metrics[name], self.perfect_box.metrics[name]
            known = before is not None and after is not None and best is not None and best - before > 1e-9
            closed[name] = (after - before) / (best - before) if known else None  # type: ignore[operator]
        return closed


def compare(evaluate: Evaluator, before: Rows, after: Rows, best: Rows) -> tuple[Comparison, tuple[str, ...]]:
    """The comparison of ``[N, 7]`` detections, ``best`` with perfect boxes, and what is to be said about it.

    Images that only one of the two has detections in are left out: a run that was cut off makes no box worse.

    Raises:
        ValueError: no image is left.
    """
    known, refined = (set(rows[:, 0].astype(int).tolist()) for rows in (before, after))
    apart = known ^ refined
    remarks: tuple[str, ...] = ()
    if apart:
        evaluate = of_images(evaluate, {entry["id"] for entry in evaluate.data.images} - apart)
        before, after, best = (rows[~np.isin(rows[:, 0], list(apart))] for rows in (before, after, best))
        remarks = (
            f"refined: no detections in {len(known - refined)} images that have some before, and some in "
            f"{len(refined - known)} images that have none; before and after are compared on the other "
            f"{len(evaluate.data.images)} images only",
        )
    interval = bootstrap.difference(evaluate.data, before, after, lvis=evaluate.lvis)
    return Comparison(evaluate(before), evaluate(after), evaluate(best), interval), remarks


def of_images(whole: Evaluator, ids: set[int]) -> Evaluator:
    """The same evaluation on some of its images.

    Raises:
        ValueError: it is none.
    """
    if not ids:
        raise ValueError("the refined detections are in none of the images that the others are in; are they of these?")
    images = [entry for entry in whole.data.images if entry["id"] in ids]
    kept = [entry for entry in whole.data.annotations if entry["image_id"] in ids]
    return Evaluator(replace(whole.data, images=images, annotations=kept), lvis=whole.lvis)
