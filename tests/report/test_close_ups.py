"""What is enlarged, where it comes from, and what stands beside it."""

import numpy as np
import pytest
import torch
from PIL import Image

from refinebox.report.close_ups import AFTER, BEFORE, GAP, HEIGHT, Moved, close_up, legend, most_moved, sheet


def image(width: int = 320, height: int = 240) -> Image.Image:
    """Red grows to the right and green downwards, so that a pixel says where it is."""
    x, y = np.meshgrid(np.linspace(0, 255, width), np.linspace(0, 255, height))
    return Image.fromarray(np.stack([x, y, np.zeros_like(x)], -1).astype(np.uint8))


def moved(*shifts: float, size: tuple[int, int] = (320, 240)) -> Moved:
    """Boxes in a row, each of 30 x 20 pixels, that moved down by so much."""
    before = torch.tensor([[10.0 + 60 * index, 50, 40 + 60 * index, 70] for index in range(len(shifts))]).reshape(-1, 4)
    after = before + torch.tensor([[0, shift, 0, shift] for shift in shifts]).reshape(-1, 4)
    return Moved(image(*size), before, after, [f"box {index}" for index in range(len(shifts))])


def test_distances_are_those_of_the_overlap() -> None:
    assert moved(0.0, 10.0, 20.0).distances().tolist() == pytest.approx([0, 2 / 3, 1])


def test_what_moved_most_comes_first_and_what_stayed_is_left_out() -> None:
    assert moved(3.0, 0.0, 9.0, 5.0).farthest(4) == [2, 3, 0]
    assert moved(3.0, 0.0, 9.0, 5.0).farthest(2) == [2, 3]
    assert moved(0.0, 0.1).farthest(4) == []


def test_boxes_that_are_not_numbers_are_left_out() -> None:
    both = moved(3.0, float("nan"))
    assert both.farthest(4) == [0]
    assert most_moved([both], 1) == [both]


def test_candidates_alone_are_enlarged() -> None:
    both = moved(3.0, 9.0, 5.0)
    chosen = Moved(both.image, both.before, both.after, both.captions, torch.tensor([True, False, True]))
    assert chosen.farthest(4) == [2, 0]


def test_of_two_boxes_at_one_place_one_is_enlarged() -> None:
    both = moved(3.0, 9.0)
    twice = Moved(both.image, both.before[[0, 1, 1]], both.after[[0, 1, 1]], ["a", "b", "c"])
    assert twice.farthest(4) == [1, 0]


@pytest.mark.parametrize(
    "box", [[0.0, 0, 30, 20], [290, 220, 320, 240], [100, 100, 130, 120], [-20, -20, 10, 10], [0, 0, 320, 100]]
)
def test_a_window_holds_both_boxes_and_stays_inside(box: list[float]) -> None:
    before = torch.tensor([box])
    both = Moved(image(), before, before + 4, ["box"])
    x, y, side = both.window(0)
    assert side >= max(both.after[0, 2] - before[0, 0], both.after[0, 3] - before[0, 1])
    assert side > 320 or 0 <= x <= 320 - side
    assert side > 240 or 0 <= y <= 240 - side


def test_a_window_around_a_large_box_is_no_larger_than_the_image() -> None:
    box = torch.tensor([[10.0, 5, 230, 235]])
    assert Moved(image(), box, box + 2, ["box"]).window(0)[1:] == (0, 240)


def test_a_close_up_shows_that_part_of_the_image() -> None:
    both = moved(4.0)
    x, y, side = both.window(0)
    shown = np.asarray(close_up(both, 0, 300), dtype=int)
    assert shown.shape == (300, 300, 3)
    middle = shown[150, 150]  # inside both boxes, where nothing is drawn
    expected = np.array([(x + side / 2) / 319, (y + side / 2) / 239]) * 255
    assert middle[:2] == pytest.approx(expected, abs=2)
    assert (shown == BEFORE).all(-1).any()
    assert (shown == AFTER).all(-1).any()


@pytest.mark.parametrize("size", [(320, 240), (240, 320), (900, 100), (16, 16)])
def test_a_sheet_has_room_for_everything(size: tuple[int, int]) -> None:
    few, many = moved(4.0, size=size), moved(*([4.0] * 5), size=size)
    one, two = sheet([few]), sheet([few, many])
    strip = legend(one.width).height
    assert one.height == HEIGHT + GAP + strip
    assert two.height == 2 * (HEIGHT + GAP) + strip
    assert one.width == two.width


def test_images_without_boxes_are_shown_without_close_ups() -> None:
    none = Moved(image(), torch.zeros(0, 4), torch.zeros(0, 4), [])
    assert sheet([none]).width == sheet([moved(4.0)]).width
    assert most_moved([none, moved(1.0), moved(9.0)], 2)[0].after[0, 1] == 59
