"""One spelling of gains."""

import pytest

from refinebox.refinement.change import change, decided, deciding

BOXES = {"mean": 2.04, "low": -0.96, "high": 5.04, "resamples": 1000}


@pytest.mark.parametrize(
    ("numbers", "expected"),
    [
        ((47.44, 52.64), "47.4 → 52.6 (+5.2)"),
        ((40.0, 39.5, -1.0, 0.04), "40.0 → 39.5 (-0.5, 95 %: -1.0 to +0.0)"),
    ],
)
def test_a_gain_is_before_after_difference_and_interval(numbers: tuple[float, ...], expected: str) -> None:
    assert change(*numbers) == expected


def test_what_decided_instead_of_them_is_told() -> None:
    choice = {"images": 87, "known": 73.6, "boxes": BOXES, "before": 50.0, "after": 52.0}
    assert deciding(choice) == (
        "87 validation images, as the detector knows held-out training images by heart (AP 73.6 there),"
    )
    assert decided(choice) == "50.0 → 52.0 (+2.0, 95 %: -1.0 to +5.0, of images that also chose the epoch)"


def test_the_held_out_images_are_told_alike() -> None:
    assert decided({"boxes": BOXES, "before": 50.0, "after": 52.0}) == "50.0 → 52.0 (+2.0, 95 %: -1.0 to +5.0)"
    assert decided({"boxes": BOXES}) == "+2.0 (95 %: -1.0 to +5.0)"
    assert deciding({"images": 90}) == "90 training images that were held out"
