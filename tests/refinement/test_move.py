"""Moves of boxes, and boxes cut at the borders."""

import math

import pytest
import torch

from refinebox.refinement.move import FURTHEST, clipped, moved

BOXES = torch.tensor([[0.3, 0.4, 0.2, 0.1], [0.9, 0.05, 0.4, 0.3]])


@pytest.mark.parametrize("how", ["logit", "relative"])
def test_no_move_leaves_boxes_where_they_are(how: str) -> None:
    torch.testing.assert_close(moved(BOXES, torch.zeros(2, 4), how), BOXES)  # type: ignore[arg-type]


def test_relative_moves_are_in_the_boxs_own_sides() -> None:
    moves = torch.tensor([[0.5, -1.0, math.log(2), 0.0]]).expand(2, 4)
    expected = torch.tensor([[0.4, 0.3, 0.4, 0.1], [1.1, -0.25, 0.8, 0.3]])
    torch.testing.assert_close(moved(BOXES, moves, "relative"), expected)


def test_a_relative_move_means_the_same_everywhere() -> None:
    """The same box elsewhere in the image, or in another scale, is moved to the same place in its own frame."""
    moves = torch.tensor([[0.3, 0.2, -0.1, 0.4]])
    box, other = torch.tensor([[0.2, 0.3, 0.1, 0.2]]), torch.tensor([[0.6, 0.7, 0.05, 0.1]])
    (one, two) = (moved(each, moves, "relative") for each in (box, other))
    torch.testing.assert_close((one[:, :2] - box[:, :2]) / box[:, 2:], (two[:, :2] - other[:, :2]) / other[:, 2:])
    torch.testing.assert_close(one[:, 2:] / box[:, 2:], two[:, 2:] / other[:, 2:])


def test_relative_moves_have_a_limit() -> None:
    far = moved(BOXES, torch.full((2, 4), 99.0), "relative")
    torch.testing.assert_close(far, moved(BOXES, torch.full((2, 4), FURTHEST), "relative"))


def test_boxes_are_cut_at_the_borders() -> None:
    boxes = torch.tensor([[0.5, 0.5, 0.2, 0.2], [0.0, 0.5, 0.2, 0.2], [0.9, 0.9, 0.4, 0.4], [1.5, 0.5, 0.2, 0.2]])
    expected = torch.tensor([[0.5, 0.5, 0.2, 0.2], [0.05, 0.5, 0.1, 0.2], [0.85, 0.85, 0.3, 0.3], [1.0, 0.5, 0.0, 0.2]])
    torch.testing.assert_close(clipped(boxes), expected)
