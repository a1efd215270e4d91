"""Moved copies of boxes."""

import torch

from refinebox.refinement.jitter import jittered, noise


def test_boxes_move_by_at_most_the_amount() -> None:
    boxes = torch.tensor([[0.5, 0.5, 0.2, 0.4], [0.3, 0.6, 0.1, 0.2]])
    drawn = noise([3, 8], [1, 1], 500, "0 1")
    sides = boxes[:, [2, 3, 2, 3]]
    change = (jittered(boxes, drawn) - boxes).abs() / sides  # [500, 2, 4]
    assert 0.14 < change.max() <= 0.1501
    assert (change.mean((0, 1)) > 0.05).all()


def test_noise_depends_on_key_and_image_alone() -> None:
    whole = noise([7, 3, 5], [2, 0, 4], 2, "0 1")
    assert whole.shape == (2, 6, 4)
    assert whole.min() >= -1
    assert whole.max() <= 1
    assert torch.equal(noise([5], [4], 2, "0 1"), whole[:, 2:])
    assert not torch.equal(noise([7, 3, 5], [2, 0, 4], 2, "0 2"), whole)


def test_no_images_need_no_noise() -> None:
    assert noise([], [], 2, "0").shape == (2, 0, 4)
