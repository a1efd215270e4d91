"""Differences of AP over resampled images."""

from dataclasses import replace

import numpy as np
import pytest
from random_boxes import draw_data, draw_rows

from refinebox.data.annotations import CocoData
from refinebox.evaluation import bootstrap
from refinebox.evaluation.bootstrap import Resampled
from refinebox.evaluation.evaluator import coco_ap
from refinebox.evaluation.overlaps import Objects
from refinebox.evaluation.rows import Rows


def copies(truth: CocoData, rows: Rows, counts: list[int]) -> tuple[CocoData, Rows]:
    """The same with each image as often as ``counts`` says, as images of their own."""
    images, annotations, parts = [], [], []
    for entry, count in zip(truth.images, counts, strict=True):
        for copy in range(count):
            image_id = 1000 * copy + entry["id"]
            images.append({**entry, "id": image_id})
            mine = [a for a in truth.annotations if a["image_id"] == entry["id"]]
            annotations += [
                {**a, "image_id": image_id, "id": len(annotations) + n} for n, a in enumerate(mine, start=1)
            ]
            part = rows[rows[:, 0] == entry["id"]].copy()
            part[:, 0] = image_id
            parts.append(part)
    return replace(truth, images=images, annotations=annotations), np.concatenate(parts)


@pytest.mark.parametrize("counts", [[1, 1, 1, 1, 1, 1], [2, 0, 1, 3, 0, 0], [0, 0, 1, 0, 4, 1]])
def test_ap_of_a_resample_is_that_of_a_file_with_images_repeated(counts: list[int]) -> None:
    random = np.random.default_rng(0)
    truth = draw_data(random)
    rows = draw_rows(random, truth)
    rows[:, 5] = random.permutation(len(rows)) / len(rows)  # without ties, whose order copies would change
    resampled = Resampled(rows, Objects.of(truth), np.array([entry["id"] for entry in truth.images]))
    expected = coco_ap(*copies(truth, rows, counts))["AP"]
    assert resampled.ap(np.array(counts)) == pytest.approx(expected, abs=1e-9)


def test_equal_detections_differ_by_nothing() -> None:
    random = np.random.default_rng(0)
    truth = draw_data(random)
    rows = draw_rows(random, truth)
    found = bootstrap.difference(truth, rows, rows, resamples=20)
    assert (found.mean, found.low, found.high, found.resamples) == (0, 0, 0, 20)


def test_better_boxes_are_better_beyond_doubt_and_the_interval_holds_the_difference() -> None:
    random = np.random.default_rng(0)
    truth = draw_data(random, images=30)
    rows = draw_rows(random, truth)
    worse = rows.copy()
    worse[:, 1:3] += 0.15 * worse[:, 3:5]
    found = bootstrap.difference(truth, worse, rows, resamples=200, seed=1)
    whole = (coco_ap(truth, rows)["AP"] or 0) - (coco_ap(truth, worse)["AP"] or 0)
    assert 0 < found.low < whole < found.high
    assert found.low < found.mean < found.high
    assert found == bootstrap.difference(truth, worse, rows, resamples=200, seed=1)
    assert found != bootstrap.difference(truth, worse, rows, resamples=200, seed=2)


def test_data_without_objects_differ_by_nothing() -> None:
    truth = replace(draw_data(np.random.default_rng(0)), annotations=[])
    rows = np.array([[1, 5, 5, 9, 9, 0.5, 2]])
    assert bootstrap.difference(truth, rows, rows[:0], resamples=3).mean == 0
