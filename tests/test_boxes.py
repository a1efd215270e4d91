import math

import pytest
import torch
from torch import Tensor
from torchvision.ops import box_convert, box_iou

from refinebox.boxes import inverse_sigmoid, paired_iou, to_fractions, to_pixels, whwh


def random_boxes(*leading: int) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.rand(*leading, 4, generator=generator) * 0.4 + 0.1


def test_pixels_of_a_box_worked_out_by_hand() -> None:
    boxes = torch.tensor([[0.5, 0.25, 0.25, 0.5]])
    assert to_pixels(boxes, torch.tensor([100, 200])).tolist() == [[75, 0, 125, 50]]


def test_boxes_that_stick_out_are_not_clipped() -> None:
    boxes = torch.tensor([[0.0, 1.0, 0.5, 0.5]])
    assert to_pixels(boxes, torch.tensor([100, 200])).tolist() == [[-50, 75, 50, 125]]


def test_each_image_of_a_batch_has_its_own_size() -> None:
    boxes, sizes = random_boxes(2, 5), torch.tensor([[100, 200], [30, 70]])
    expected = [
        box_convert(boxes[image], "cxcywh", "xyxy") * torch.tensor([width, height, width, height])
        for image, (height, width) in enumerate(sizes.tolist())
    ]
    torch.testing.assert_close(to_pixels(boxes, sizes), torch.stack(expected))


@pytest.mark.parametrize("leading", [(0,), (5,), (2, 5), (3, 2, 5)])
def test_fractions_undo_pixels(leading: tuple[int, ...]) -> None:
    boxes = random_boxes(*leading)
    sizes = torch.tensor([480, 640]).expand(*leading[:-1], 2)
    torch.testing.assert_close(to_fractions(to_pixels(boxes, sizes), sizes), boxes)


def test_whole_numbers_of_pixels_become_fractions() -> None:
    fractions = to_fractions(torch.tensor([[80, 0, 120, 50]]), torch.tensor([100, 200]))
    torch.testing.assert_close(fractions, torch.tensor([[0.5, 0.25, 0.2, 0.5]]))


def test_width_comes_before_height() -> None:
    assert whwh(torch.tensor([[3, 7], [1, 2]])).tolist() == [[7, 3, 7, 3], [2, 1, 2, 1]]


@pytest.mark.parametrize("epsilon", [1e-3, 1e-5])
def test_inverse_sigmoid_undoes_sigmoid(epsilon: float) -> None:
    values = torch.linspace(0.01, 0.99, 99)
    torch.testing.assert_close(inverse_sigmoid(values, epsilon), torch.special.logit(values))


@pytest.mark.parametrize("epsilon", [1e-3, 1e-5])
@pytest.mark.parametrize(("value", "sign"), [(-0.5, 1), (0.0, 1), (1.0, -1), (1.5, -1)])
def test_inverse_sigmoid_is_finite_at_the_ends(value: float, sign: int, epsilon: float) -> None:
    logit = inverse_sigmoid(torch.tensor(value), epsilon).item()
    assert logit == pytest.approx(sign * math.log(epsilon), rel=1e-5)


def test_inverse_sigmoid_has_the_gradient_of_the_logit_inside() -> None:
    values = torch.tensor([0.2, 0.5, 0.9], requires_grad=True)
    inverse_sigmoid(values).sum().backward()
    torch.testing.assert_close(values.grad, 1 / (values * (1 - values)).detach())


@pytest.mark.parametrize("value", [-0.5, 0.0, 1.0, 1.5])
def test_inverse_sigmoid_does_not_explode_at_the_ends(value: float) -> None:
    values = torch.tensor(value, requires_grad=True)
    inverse_sigmoid(values).backward()
    assert values.grad is not None
    assert abs(values.grad.item()) <= 1


def test_paired_overlaps_are_those_of_torchvision() -> None:
    boxes, others = random_boxes(20), random_boxes(40)[20:]
    wanted = box_iou(box_convert(boxes, "cxcywh", "xyxy"), box_convert(others, "cxcywh", "xyxy")).diagonal()
    assert (wanted > 0).any()
    torch.testing.assert_close(paired_iou(boxes, others), wanted)
    assert paired_iou(torch.zeros(1, 4), torch.zeros(1, 4)).item() == 0
