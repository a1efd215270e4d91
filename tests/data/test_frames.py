"""Boxes in every form, told apart by the images they lie in."""

import numpy as np
import pytest
from torch import from_numpy
from torchvision.ops import box_convert

from refinebox.data.frames import READINGS, Floats, Reading, chosen, fits, inside, read, upright

SIZES = np.array([[640.0, 480.0], [300.0, 900.0]] * 40)


def boxes() -> Floats:
    random = np.random.default_rng(0)
    sides = random.uniform(0.1, 0.6, (len(SIZES), 2)) * SIZES
    return np.concatenate([random.uniform(0, 1, sides.shape) * (SIZES - sides), sides], axis=1)


def written(reading: Reading) -> Floats:
    """The same boxes in another form, by torchvision."""
    found = box_convert(from_numpy(boxes()), "xywh", reading.removesuffix("n")).numpy()
    return found / np.tile(SIZES, 2) if reading.endswith("n") else found


@pytest.mark.parametrize("reading", READINGS)
def test_each_form_is_read_back(reading: Reading) -> None:
    np.testing.assert_allclose(read(written(reading), SIZES, reading), boxes(), atol=1e-9)


@pytest.mark.parametrize("reading", READINGS)
def test_each_form_fits_best_as_itself(reading: Reading) -> None:
    shares = fits(written(reading), SIZES)
    assert shares[reading] == 1
    assert max(shares, key=lambda name: shares[name]) == reading or reading == "xywh"


def test_sound_boxes_are_left_alone() -> None:
    assert chosen(boxes(), SIZES, None) == "xywh"
    for reading in READINGS:
        assert chosen(boxes(), SIZES, reading) == "xywh"


@pytest.mark.parametrize("reading", [reading for reading in READINGS if reading != "xywh"])
def test_another_form_is_told_and_read_where_it_is_wished(reading: Reading) -> None:
    expected = rf"the boxes look like .*: 100% fit so, \d+% as they stand; pass --boxes {reading} to read them so"
    with pytest.raises(ValueError, match=expected):
        chosen(written(reading), SIZES, None)
    assert chosen(written(reading), SIZES, reading) == reading
    assert chosen(written(reading), SIZES, "xywh") == "xywh"


def test_nothing_is_concluded_from_few() -> None:
    assert chosen(written("xyxy")[:9], SIZES[:9], None) == "xywh"


def test_boxes_are_turned_around() -> None:
    turned = np.array([[30.0, 40, -20, -30], [10, 40, 20, -30], [10, 10, 20, 30]])
    assert upright(turned).tolist() == [[10, 10, 20, 30]] * 3


def test_a_little_beyond_is_inside() -> None:
    candidates = np.array([[-3.0, 0, 50, 50], [-20, 0, 50, 50], [60, 60, 42, 42], [60, 60, 60, 42], [5, 5, 0.5, 0.2]])
    assert inside(candidates, np.full((5, 2), 100.0)).tolist() == [True, False, True, False, False]
