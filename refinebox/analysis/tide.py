"""TIDE's six types of error and what each costs (Bolya et al. 2020, sections 2.2 and 2.3).

Equal to tidecv 1.0.1 on the same files, with three differences. A category that has detections but no object is left
out of the mean, as in COCO; tidecv counts it as an AP of 0, which lowers AP and every cost. Detections of equal score
keep their order; tidecv's order changes with what it fixes. The 101 recalls are COCO's to the last bit; tidecv's differ
there, which shows where a recall is a whole per cent. It also reads annotations that have boxes alone, without masks.
"""

from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import numpy as np

from refinebox.evaluation.backends import LVIS_DETECTIONS
from refinebox.evaluation.overlaps import BACKGROUND, FOREGROUND, Overlaps, Pass
from refinebox.evaluation.precision import Ranking
from refinebox.evaluation.rows import Bools, Floats, Ints, top

DETECTIONS = 100  # the best of each image are looked at; in LVIS as many as there


class Kind(IntEnum):
    """What is wrong with a detection, or, for ``MISSED``, with the lack of one."""

    RIGHT = -1
    CLASS = 0
    BOX = 1
    BOTH = 2
    DUPLICATE = 3
    BACKGROUND = 4
    MISSED = 5


ERRORS = [kind for kind in Kind if kind != Kind.RIGHT]
MEANINGS = {
    Kind.CLASS: "on an object of another category",
    Kind.BOX: "right category, IoU with its object between 0.1 and 0.5",
    Kind.BOTH: "another category, and IoU between 0.1 and 0.5",
    Kind.DUPLICATE: "the object was found already, with a higher score",
    Kind.BACKGROUND: "IoU of at most 0.1 with every object",
    Kind.MISSED: "objects that no detection finds, nor would find if its category or box were put right",
}


@dataclass(frozen=True)
class Errors:
    """What is wrong with each detection.

    Attributes:
        kind: ``[N]`` a :class:`Kind` each.
        ignored: ``[N]`` detections in a crowd of their category, or of one that LVIS did not look for in their image,
            which count neither way.
        repaired: ``[N]`` the object that a class or box error would find if it were put right, or -1.
        missed: ``[M]`` objects that are neither found nor would be.
    """

    kind: Ints
    ignored: Bools
    repaired: Ints
    missed: Bools


def classify(overlaps: Overlaps) -> Errors:
    """The error of every detection, decided in TIDE's order: box, class, duplicate, background, both."""
    objects, found = overlaps.objects, overlaps.match((Pass(FOREGROUND),))
    used = np.zeros(len(objects.image) + 1, dtype=np.bool_)  # the last stands for "no object", which is index -1
    used[found[found >= 0]] = True
    plain = ~objects.crowd[overlaps.object]
    own_iou, own = _best(overlaps, plain & overlaps.same)
    other_iou, other = _best(overlaps, plain & ~overlaps.same)
    used_iou, _ = _best(overlaps, plain & overlaps.same & used[overlaps.object])
    any_iou = np.maximum(own_iou, other_iou)
    conditions = [
        found >= 0,
        (own_iou >= BACKGROUND) & (own_iou <= FOREGROUND),
        other_iou >= FOREGROUND,
        used_iou >= FOREGROUND,
        any_iou <= BACKGROUND,
    ]
    kind = np.select(conditions, [Kind.RIGHT, Kind.BOX, Kind.CLASS, Kind.DUPLICATE, Kind.BACKGROUND], Kind.BOTH)
    repaired = np.select([kind == Kind.BOX, kind == Kind.CLASS], [own, other], -1)
    repaired[used[repaired]] = -1
    repaired = _best_ranked(overlaps.rank, repaired, len(objects.image))
    used[repaired[repaired >= 0]] = True
    ignored = (found < 0) & overlaps.excused(np.nextafter(FOREGROUND, 1))  # TIDE wants more than the threshold here
    return Errors(kind, ignored, repaired, ~objects.crowd & ~used[:-1])


def analyse(overlaps: Overlaps) -> dict[str, Any]:
    """AP50 in points, of how many ``detections`` an image, and of each error its ``count`` and cost (``dAP``).

    ``dAP`` is AP50 with this one type put right, less AP50, and 0 where that is below 0. The 100 best detections of
    each image are looked at, in LVIS the 300 best, of which those that count neither way there are no errors.
    """
    limit = DETECTIONS if overlaps.objects.federated is None else LVIS_DETECTIONS
    kept = top(overlaps.rows, limit, each_category=False)
    if not kept.all():
        overlaps = Overlaps.between(overlaps.rows[kept], overlaps.objects)
    errors = classify(overlaps)
    plain = ap50(overlaps, errors)
    counted = ~overlaps.unlooked_for() | (errors.repaired >= 0)
    found = {}
    for kind in ERRORS:
        count = int((errors.missed if kind == Kind.MISSED else counted & (errors.kind == kind)).sum())
        found[kind.name.lower()] = {"count": count, "dAP": max(0.0, ap50(overlaps, errors, kind) - plain)}
    return {"AP50": plain, "detections": limit, "errors": found}


def ap50(overlaps: Overlaps, errors: Errors, fixed: Kind | None = None) -> float:
    """AP50 in points, with one type of error put right: repaired, or else taken out."""
    counted = ~overlaps.objects.crowd
    known = np.unique(overlaps.objects.category[counted])
    if not len(known):
        return 0.0
    category = overlaps.rows[:, 6].astype(np.int64)
    hit, kept = errors.kind == Kind.RIGHT, ~errors.ignored
    if fixed is not None:
        repaired = (errors.kind == fixed) & (errors.repaired >= 0)
        category = np.where(repaired, overlaps.objects.category[errors.repaired], category)
        hit = hit | repaired
        kept = (kept & (errors.kind != fixed)) | repaired
    kept &= np.isin(category, known)
    if fixed == Kind.MISSED:
        counted &= ~errors.missed
    positives = np.bincount(np.searchsorted(known, overlaps.objects.category[counted]), minlength=len(known))
    columns = np.searchsorted(known, category[kept])
    ranking = Ranking(overlaps.rank[kept], columns, hit[None, kept], np.zeros((1, kept.sum()), np.bool_), len(known))
    precision = ranking.average_precision(positives.astype(np.float64))[0]
    # a category of which every object was missed keeps an AP of 0 as long as it has detections, as in tidecv
    precision = precision[(positives > 0) | (np.bincount(columns, minlength=len(known)) > 0)]
    return 100 * float(np.nan_to_num(precision).mean()) if len(precision) else 0.0


def _best(overlaps: Overlaps, among: Bools) -> tuple[Floats, Ints]:
    """``[N]`` the highest IoU of each detection among some pairs, 0 where there is none, and with which object."""
    pairs = np.flatnonzero(among)
    pairs = pairs[np.lexsort((-overlaps.object[pairs], overlaps.iou[pairs]))]  # the best is written last
    iou, object_ = np.zeros(len(overlaps.rows)), np.full(len(overlaps.rows), -1)
    iou[overlaps.detection[pairs]] = overlaps.iou[pairs]
    object_[overlaps.detection[pairs]] = overlaps.object[pairs]
    return iou, object_


def _best_ranked(rank: Ints, objects: Ints, count: int) -> Ints:
    """The same objects, each left to the best-ranked of the detections that name it."""
    named = np.flatnonzero(objects >= 0)
    named = named[np.argsort(-rank[named])]
    winner = np.full(count, -1)
    winner[objects[named]] = named
    alone = np.full(len(objects), -1)
    kept = named[winner[objects[named]] == named]
    alone[kept] = objects[kept]
    return alone
