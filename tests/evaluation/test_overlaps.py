"""Overlaps and greedy matching against pycocotools and against one detection after the other."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from pycocotools import mask
from random_boxes import draw_data, draw_rows, judged

from refinebox.evaluation import overlaps
from refinebox.evaluation.overlaps import Objects, Overlaps, Pass, pair_iou
from refinebox.evaluation.rows import Ints, top


def drawn(seed: int) -> Overlaps:
    random = np.random.default_rng(seed)
    truth = draw_data(random)
    return Overlaps.between(draw_rows(random, truth), Objects.of(truth))


@pytest.mark.parametrize("seed", range(3))
def test_overlaps_are_pycocotools_iou(seed: int) -> None:
    found = drawn(seed)
    rows, objects = found.rows, found.objects
    expected = mask.iou(rows[:, 1:5], objects.boxes, objects.crowd.astype(int).tolist())
    expected[rows[:, 0][:, None] != objects.image[None]] = 0
    actual = np.zeros_like(expected)
    actual[found.detection, found.object] = found.iou
    np.testing.assert_array_equal(actual, np.where(expected >= 0.1, expected, 0))
    np.testing.assert_array_equal(found.same, rows[found.detection, 6] == objects.category[found.object])


def test_pairs_do_not_depend_on_how_many_are_computed_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = drawn(0)
    monkeypatch.setattr(overlaps, "PAIRS_AT_ONCE", 50)
    np.testing.assert_array_equal(drawn(0).iou, whole.iou)
    np.testing.assert_array_equal(drawn(0).detection, whole.detection)


def one_by_one(found: Overlaps, passes: Sequence[Pass]) -> Ints:
    """The definition: in score order, each detection takes the free object that it overlaps most."""
    matched, free = np.full(len(found.rows), -1), ~found.objects.crowd
    pairs: dict[int, list[tuple[float, int, bool]]] = {}
    for detection, index, iou, same in zip(found.detection, found.object, found.iou, found.same, strict=True):
        pairs.setdefault(int(detection), []).append((float(iou), int(index), bool(same)))
    for item in passes:
        for detection in np.argsort(found.rank):
            usable = [
                (iou, index)
                for iou, index, same in pairs.get(int(detection), [])
                if free[index] and iou >= item.iou and (same or not item.same_category)
            ]
            if matched[detection] < 0 and usable:
                matched[detection] = max(usable)[1]
                free[matched[detection]] = False
    return matched


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    "passes",
    [[Pass(0.5)], [Pass(0.5), Pass(0.1)], [Pass(0.5), Pass(0.5, False), Pass(0.1, False)], [Pass(0.1, False)]],
    ids=["one", "nearer first", "any category last", "any category"],
)
def test_matching_is_one_detection_after_the_other(seed: int, passes: list[Pass]) -> None:
    found = drawn(seed)
    expected = one_by_one(found, passes)
    np.testing.assert_array_equal(found.match(passes), expected)
    assert (expected >= 0).sum() > 20


@pytest.mark.parametrize("seed", range(3))
def test_matching_is_cocos(seed: int) -> None:
    random = np.random.default_rng(seed)
    truth = draw_data(random)
    rows = draw_rows(random, truth)
    rows = rows[top(rows, 100, each_category=True)]
    found = Overlaps.between(rows, Objects.of(truth))
    matched = found.match([Pass(0.75)])
    ids = np.array([entry["id"] for entry in truth.annotations])
    pairs = {(index + 1, int(ids[to])) for index, to in enumerate(matched) if to >= 0}
    images = (item for item in judged(truth, rows).evalImgs if item and item["aRng"] == [0, 1e10])
    expected = {
        (detection, int(to))
        for item in images
        for detection, to, ignored in zip(item["dtIds"], item["dtMatches"][5], item["dtIgnore"][5], strict=True)
        if to and not ignored
    }
    assert pairs == expected
    assert len(pairs) > 10


def test_crowds_are_not_matched_but_seen() -> None:
    found = drawn(1)
    everything = replace(found.objects, crowd=np.ones(len(found.objects.crowd), dtype=np.bool_))
    crowded = Overlaps.between(found.rows, everything)
    assert (crowded.match([Pass(0.1, same_category=False)]) == -1).all()
    inside = crowded.excused(0.5)
    assert 0 < inside.sum() < len(inside)
    assert not drawn(1).excused(1.1).any()


def test_nothing_overlaps_nothing() -> None:
    found = drawn(0)
    none = Overlaps.between(np.empty((0, 7)), found.objects)
    assert none.match([Pass(0.5)]).shape == (0,)
    objects = Objects(np.empty(0, np.int64), np.empty(0, np.int64), np.empty((0, 4)), np.empty(0, np.bool_))
    assert (Overlaps.between(found.rows, objects).match([Pass(0.5)]) == -1).all()


def test_boxes_without_area_overlap_nothing() -> None:
    point = np.array([[5.0, 5, 0, 0]])
    assert pair_iou(point, point, np.array([False])).tolist() == [0]
    assert pair_iou(point, point, np.array([True])).tolist() == [0]


def test_the_best_of_each_image_are_kept() -> None:
    rows = np.zeros((6, 7))
    rows[:, 0], rows[:, 5], rows[:, 6] = (1, 1, 1, 2, 1, 1), (0.1, 0.9, 0.5, 0.3, 0.5, 0.2), (1, 1, 1, 1, 2, 2)
    assert top(rows, 2, each_category=False).tolist() == [False, True, True, True, False, False]
    assert top(rows, 2, each_category=True).tolist() == [False, True, True, True, True, True]
    assert top(rows[:0], 2, each_category=True).tolist() == []
