"""One spelling of gains."""

import pytest

from refinebox.refinement.change import change, held_out

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


def test_the_held_out_images_are_told_alike() -> None:
    assert held_out({"boxes": BOXES, "before": 50.0, "after": 52.0}) == "50.0 → 52.0 (+2.0, 95 %: -1.0 to +5.0)"
    assert held_out({"boxes": BOXES}) == "+2.0 (95 %: -1.0 to +5.0)"
