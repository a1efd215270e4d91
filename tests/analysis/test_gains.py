"""Which objects and images got better boxes."""

from dataclasses import replace

import numpy as np
import pytest
from known_boxes import ROWS, TRUTH

from refinebox.analysis.gains import Gain, image_gains, place
from refinebox.evaluation.overlaps import Objects


def test_objects_get_the_detection_of_their_category() -> None:
    found = place(ROWS, Objects.of(TRUTH))
    np.testing.assert_allclose(found.iou, [0.8, 0.3, 0])
    np.testing.assert_array_equal(found.boxes, [[0, 0, 20, 16], [50, 50, 20, 6], [np.nan] * 4])


def test_crowds_have_no_iou() -> None:
    crowds = replace(TRUTH, annotations=[{**entry, "iscrowd": 1} for entry in TRUTH.annotations])
    found = place(ROWS, Objects.of(crowds))
    assert np.isnan(found.iou).all()
    assert image_gains(Objects.of(crowds), found, found) == []


def test_images_are_ranked_by_the_mean_change_of_their_objects() -> None:
    images = [{"id": image_id, "file_name": "", "width": 200, "height": 200} for image_id in (1, 7, 8)]
    one = TRUTH.annotations[0]
    more = [{**one, "id": 4, "image_id": 7}, {**one, "id": 5, "image_id": 8}]
    truth = replace(TRUTH, images=images, annotations=[*TRUTH.annotations, *more])
    before = np.concatenate([ROWS, [[7, 0, 0, 20, 16, 0.9, 1], [8, 0, 0, 20, 16, 0.9, 1]]])
    after = before.copy()
    after[[0, 6, 7], 4] = 20, 14, 18  # 0.8 becomes 1 for one of three objects, 0.7, and 0.9
    objects = Objects.of(truth)
    gains = image_gains(objects, place(before, objects), place(after, objects))
    assert [gain.image_id for gain in gains] == [8, 1, 7]
    assert [gain.value for gain in gains] == pytest.approx([0.1, 0.2 / 3, -0.1])
    assert isinstance(gains[0], Gain)
