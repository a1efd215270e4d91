"""Before and after, on the images that both are of."""

import numpy as np
import pytest
from random_boxes import worse

from refinebox.analysis.comparison import compare
from refinebox.data.annotations import CocoData
from refinebox.data.split import of_images
from refinebox.evaluation.evaluator import Evaluator, coco_ap
from refinebox.evaluation.rows import Rows


@pytest.fixture
def before(validation: CocoData) -> Rows:
    return np.array([[e["image_id"], *e["bbox"], e["score"], e["category_id"]] for e in worse(validation)])


def test_a_file_of_half_the_images_is_compared_on_these(before: Rows, validation: CocoData) -> None:
    half = before[before[:, 0] <= 2]
    found, [remark] = compare(Evaluator(validation), before, half, before)
    expected = coco_ap(of_images(validation, {1, 2}), half)
    assert found.before.metrics == found.after.metrics == expected
    assert found.interval.mean == 0
    assert remark == (
        "refined: no detections in 2 images that have some before, and some in 0 images that have none; before and "
        "after are compared on the other 2 images only"
    )


def test_equal_images_are_all_compared(before: Rows, validation: CocoData) -> None:
    found, remarks = compare(Evaluator(validation), before, before, before)
    assert found.before.metrics == coco_ap(validation, before)
    assert remarks == ()


def test_images_without_detections_in_both_still_count(before: Rows, validation: CocoData) -> None:
    half = before[before[:, 0] <= 2]
    found, remarks = compare(Evaluator(validation), half, half, half)
    assert found.after.metrics == coco_ap(validation, half)
    assert remarks == ()


def test_nothing_in_common_is_an_error(before: Rows, validation: CocoData) -> None:
    low, high = before[before[:, 0] <= 2], before[before[:, 0] > 2]
    with pytest.raises(ValueError, match="the refined detections are in none of the images that the others are in"):
        compare(Evaluator(validation), low, high, low)
