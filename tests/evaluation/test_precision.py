"""Average precision from arrays against pycocotools, whole and with images counted several times."""

import numpy as np
import pytest
from random_boxes import draw_data, draw_rows, judged

from refinebox.evaluation.bootstrap import Resampled
from refinebox.evaluation.overlaps import Objects
from refinebox.evaluation.precision import Ranking


@pytest.mark.parametrize("seed", range(4))
def test_ap_is_pycocotools(seed: int) -> None:
    random = np.random.default_rng(seed)
    truth = draw_data(random)
    rows = draw_rows(random, truth)
    images = np.array([entry["id"] for entry in truth.images])
    resampled = Resampled(rows, Objects.of(truth), images)
    positives = np.bincount(resampled.object_category).astype(float)
    found = resampled.ranking.average_precision(positives)  # [T, K]
    expected = judged(truth, rows).eval["precision"][:, :, :, 0, 2].mean(1)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12)
    assert 0.2 < expected.mean() < 0.8


def test_a_curve_by_hand() -> None:
    hits, ignored = np.array([[True, False, True, False, True]]), np.array([[False, False, False, True, False]])
    ranking = Ranking(np.arange(5), np.zeros(5, dtype=np.int64), hits, ignored, 1)
    # precision 1 up to recall 1/4, then 2/3 and 3/4 of which the later is the higher: 26 recalls, then 50
    expected = (26 * 1 + 50 * 0.75) / 101
    assert ranking.average_precision(np.array([4.0]))[0, 0] == pytest.approx(expected, abs=1e-12)


def test_categories_without_objects_have_no_ap() -> None:
    ranking = Ranking(np.arange(2), np.array([0, 1]), np.array([[True, False]]), np.zeros((1, 2), np.bool_), 3)
    found = ranking.average_precision(np.array([1.0, 0, 2]))[0]
    assert found[0] == pytest.approx(1)
    assert np.isnan(found[1])
    assert found[2] == 0


def test_no_detections_are_an_ap_of_zero() -> None:
    nothing = np.zeros((2, 0), np.bool_)
    ranking = Ranking(np.empty(0, np.int64), np.empty(0, np.int64), nothing, nothing, 2)
    assert ranking.average_precision(np.array([1.0, 3])).tolist() == [[0, 0], [0, 0]]
