"""Features inside boxes: which level, and how much around the box."""

import pytest
import torch
from torchvision.ops import roi_align

from refinebox.refinement.head import Halved
from refinebox.refinement.pooling import enlarged, levels, pool


@pytest.mark.parametrize(
    ("side", "level"), [(0, 0), (10, 0), (111, 0), (113, 1), (223, 1), (225, 2), (449, 3), (5000, 3)]
)
def test_level_grows_with_the_side(side: float, level: int) -> None:
    assert levels(torch.tensor([[3.0, 5.0, 3 + side, 5 + side]]), (4, 8, 16, 32)).item() == level


@pytest.mark.parametrize(
    ("strides", "expected"),
    [((16,), [0, 0, 0]), ((14,), [0, 0, 0]), ((7, 14, 28), [0, 1, 2]), ((8, 16, 32), [0, 1, 2])],
)
def test_any_strides_have_levels(strides: tuple[int, ...], expected: list[int]) -> None:
    """The coarsest level that is not coarser than a fourteenth of the side."""
    boxes = torch.tensor([[0.0, 0.0, side, side] for side in (100.0, 230.0, 500.0)])
    assert levels(boxes, strides).tolist() == expected


def test_boxes_grow_about_their_centres() -> None:
    boxes = torch.tensor([[10.0, 20.0, 30.0, 80.0]])
    assert enlarged(boxes, 1.5).tolist() == [[5.0, 5.0, 35.0, 95.0]]
    assert enlarged(boxes, 1.0) is boxes


def test_the_level_is_that_of_the_box_and_the_area_that_around_it() -> None:
    torch.manual_seed(0)
    pyramid = [torch.randn(1, 3, 64, 64), torch.randn(1, 3, 32, 32)]
    box = torch.tensor([[60.0, 60.0, 160.0, 160.0]])  # 100 pixels: the finer level; 150 would be the coarser
    found = pool(pyramid, (4, 8), box, torch.tensor([0]), 1.5)
    area = torch.tensor([[0.0, 35.0, 35.0, 185.0, 185.0]])
    torch.testing.assert_close(found, roi_align(pyramid[0], area, 7, 1 / 4, sampling_ratio=2, aligned=True))


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_a_box_that_is_not_finite_neither_ends_the_process_nor_passes_for_one_that_is(value: float) -> None:
    """torchvision's RoIAlign reads outside its memory there."""
    torch.manual_seed(0)
    pyramid = [torch.randn(1, 3, 64, 64), torch.randn(1, 3, 32, 32)]
    boxes = torch.tensor([[60.0, 60.0, 160.0, 160.0], [0.0, value, 50.0, 50.0]])
    found = pool(pyramid, (4, 8), boxes, torch.tensor([0, 0]))
    assert found[1].isnan().all()
    torch.testing.assert_close(found[:1], pool(pyramid, (4, 8), boxes[:1], torch.tensor([0])), rtol=0, atol=0)


def test_maps_of_a_lower_precision_are_pooled_as_well() -> None:
    """As whoever puts a refiner under autocast has them."""
    torch.manual_seed(0)
    pyramid, box = [torch.randn(1, 3, 64, 64)], torch.tensor([[60.0, 60.0, 160.0, 160.0]])
    wanted = pool(pyramid, (4,), box, torch.tensor([0]))
    found = pool([level.bfloat16() for level in pyramid], (4,), box, torch.tensor([0]))
    torch.testing.assert_close(found.float(), wanted, atol=0.05, rtol=0)


def test_seven_cells_are_the_means_of_fourteen() -> None:
    """Both look at the same places, so what is learned from the finer ones starts from the same."""
    generator = torch.Generator().manual_seed(0)
    pyramid = [torch.randn(1, 64, 32, 32, generator=generator), torch.randn(1, 64, 16, 16, generator=generator)]
    boxes, image = torch.tensor([[10.0, 20.0, 60.0, 90.0], [3.0, 2.0, 120.0, 110.0]]), torch.tensor([0, 0])
    coarse, fine = (pool(pyramid, (4, 8), boxes, image, 1.5, cells) for cells in (7, 14))
    torch.testing.assert_close(torch.nn.functional.avg_pool2d(fine, 2), coarse, atol=1e-5, rtol=1e-5)
    halved = Halved()
    with torch.no_grad():
        halved.weight.copy_(torch.eye(64)[:, :, None, None] / 4)
    torch.testing.assert_close(halved(fine), coarse, atol=1e-5, rtol=1e-5)
