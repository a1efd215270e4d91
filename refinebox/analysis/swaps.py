"""What if this were perfect? Swaps on the detections of any detector, as arrays."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from refinebox.analysis.tide import Errors, Kind, classify
from refinebox.evaluation.overlaps import BACKGROUND, FOREGROUND, Objects, Overlaps, Pass
from refinebox.evaluation.rows import Bools, Ints, Rows

MATCHING_RULE = (
    "Matching: greedy as in COCO, in score order, one detection an object, crowds left out. First equal categories at "
    "IoU 0.5; then, for what is still free, equal categories at 0.1 (boxes) and any category at 0.5 (classes)."
)
SCORE_RULE = (
    "Scores: a perfect class also gives the matched detection the highest score, as in the published upper bound, "
    "unless the row says own score; a perfect box leaves scores alone; perfect ranking changes scores alone."
)


LAST = 1e-3  # below the scores of all that is matched, where ranking is perfect
# what detections are matched by, one pass after the other
NEAR = Pass(FOREGROUND), Pass(BACKGROUND)
EITHER = Pass(FOREGROUND), Pass(FOREGROUND, same_category=False)
ANYTHING = *NEAR, EITHER[1], Pass(BACKGROUND, same_category=False)


@dataclass(frozen=True)
class Findings:
    """Detections beside the objects, and what is wrong with each: computed once, read by every swap."""

    overlaps: Overlaps
    errors: Errors

    @classmethod
    def of(cls, rows: Rows, objects: Objects) -> "Findings":
        """For ``[N, 7]`` detections."""
        overlaps = Overlaps.between(rows, objects)
        return cls(overlaps, classify(overlaps))


@dataclass(frozen=True)
class Swapped:
    """Detections ``[K, 7]`` after a swap, and which of the objects ``[M]`` they are evaluated against."""

    rows: Rows
    objects: Bools


@dataclass(frozen=True)
class Swap:
    """One question: what if this were perfect?

    Attributes:
        name: key in the JSON file.
        title: row of the table.
        meaning: one sentence.
        apply: the answer, as detections to evaluate again.
    """

    name: str
    title: str
    meaning: str
    apply: Callable[[Findings], Swapped]


def swaps(min_iou: float = FOREGROUND) -> tuple[Swap, ...]:
    """All swaps; ``min_iou`` is what a box must overlap its object by for a refiner to reach it."""
    reachable = (Pass(max(min_iou, FOREGROUND)), Pass(min_iou))
    named = (
        ("none", "as is", "the detections as they are", partial(perfect, passes=())),
        (
            "class",
            "perfect class",
            "every matched detection is sure of its object's category",
            partial(perfect, passes=EITHER, classes=True, scores=True),
        ),
        ("box", "perfect box", "every matched box becomes its object's", partial(perfect, passes=NEAR, boxes=True)),
        (
            "both",
            "both",
            "every matched detection has its object's box and is sure of its category",
            partial(perfect, passes=ANYTHING, boxes=True, classes=True, scores=True),
        ),
        (
            "class_own_score",
            "class, own score",
            "every matched detection has its object's category and keeps its score",
            partial(perfect, passes=EITHER, classes=True),
        ),
        (
            "ranking",
            "perfect ranking",
            "every matched detection scores as its box overlaps its object, and all others less",
            perfect_ranking,
        ),
        (
            "box_from_iou",
            f"box, IoU ≥ {min_iou:.2f}",
            f"every box with an IoU of at least {min_iou:.2f} becomes its object's: what a refiner can reach",
            partial(perfect, passes=reachable, boxes=True),
        ),
        (
            "no_duplicates",
            "no duplicates",
            "second detections of an object, unless better placed, are left out",
            without_duplicates,
        ),
        ("no_background", "no background", "detections of nothing (IoU at most 0.1) are left out", without_background),
        ("no_misses", "no misses", "objects that nothing comes near are taken out of the truth", without_misses),
    )
    return tuple(Swap(*parts) for parts in named)


def perfect(
    findings: Findings, passes: Sequence[Pass], *, boxes: bool = False, classes: bool = False, scores: bool = False
) -> Swapped:
    """Matched detections take their object's box, its category, or the highest score there is (1 or the file's)."""
    overlaps = findings.overlaps
    found = overlaps.match(passes)
    matched = found >= 0
    rows = overlaps.rows.copy()
    if boxes:
        rows[matched, 1:5] = overlaps.objects.boxes[found[matched]]
    if scores:
        rows[matched, 5] = rows[:, 5].max(initial=1.0)
    if classes:
        rows[matched, 6] = overlaps.objects.category[found[matched]]
    return Swapped(rows, np.ones(len(overlaps.objects.image), dtype=np.bool_))


def perfect_ranking(findings: Findings) -> Swapped:
    """The best placed detection of each object and category scores by its IoU, all others a thousandth of theirs."""
    overlaps = findings.overlaps
    ranked = replace(overlaps, rank=by_overlap(overlaps))
    found = ranked.match(NEAR)
    rows = overlaps.rows.copy()
    rows[:, 5] *= LAST / max(1.0, rows[:, 5].max(initial=1.0))
    pairs = found[overlaps.detection] == overlaps.object
    rows[overlaps.detection[pairs], 5] = LAST + (1 - LAST) * overlaps.iou[pairs]
    return Swapped(rows, np.ones(len(overlaps.objects.image), dtype=np.bool_))


def by_overlap(overlaps: Overlaps) -> Ints:
    """``[N]`` place of each detection in the order of its largest IoU with an object of its category."""
    best = np.zeros(len(overlaps.rows))
    own = overlaps.same & ~overlaps.objects.crowd[overlaps.object]
    np.maximum.at(best, overlaps.detection[own], overlaps.iou[own])
    rank = np.empty(len(best), dtype=np.int64)
    rank[np.lexsort((overlaps.rank, -best))] = np.arange(len(best))
    return rank


def without_duplicates(findings: Findings) -> Swapped:
    """TIDE's duplicates are taken out, but for those that are better placed than what found their object.

    These are the object's detection at the higher thresholds of IoU, where the one before them is none.
    """
    overlaps = findings.overlaps
    found = overlaps.match((Pass(FOREGROUND),))
    finder = np.full(len(overlaps.objects.image), -1)
    finder[found[found >= 0]] = np.flatnonzero(found >= 0)
    by_finder = finder[overlaps.object] == overlaps.detection
    reached = np.full(len(finder), np.inf)
    reached[overlaps.object[by_finder]] = overlaps.iou[by_finder]
    better = np.zeros(len(overlaps.rows), dtype=np.bool_)
    better[overlaps.detection[overlaps.same & (overlaps.iou > reached[overlaps.object])]] = True
    return _only(findings, (findings.errors.kind != Kind.DUPLICATE) | better)


def without_background(findings: Findings) -> Swapped:
    """TIDE's background detections are taken out."""
    return _only(findings, findings.errors.kind != Kind.BACKGROUND)


def without_misses(findings: Findings) -> Swapped:
    """TIDE's missed objects are taken out, as TIDE does: added detections would need a score."""
    return Swapped(findings.overlaps.rows, ~findings.errors.missed)


def _only(findings: Findings, kept: Bools) -> Swapped:
    rows = findings.overlaps.rows[kept | findings.errors.ignored]
    return Swapped(rows, np.ones(len(findings.overlaps.objects.image), dtype=np.bool_))
