"""Pooling without RoIAlign: torchvision's own numbers, wherever a box lies."""

import pytest
import torch
from torch import Tensor
from torchvision.ops import roi_align

from refinebox.refinement.gathered import gathered, weighted_sums


def boxes(height: int, width: int) -> Tensor:
    """Small, large, thin, without area, over every border, and beside the image."""
    generator = torch.Generator().manual_seed(0)
    sides = 0.005 * 400 ** torch.rand(60, 2, generator=generator)
    centres = 1.4 * torch.rand(60, 2, generator=generator) - 0.2
    inside = torch.cat([centres - sides / 2, centres + sides / 2], 1) * torch.tensor([width, height] * 2)
    odd = torch.tensor([[5.0, 5.0, 5.0, 5.0], [0.0, 0.0, width, height], [-500.0, -500.0, -400.0, -400.0]])
    return torch.cat([inside, odd, torch.tensor([[9.0, 9.0, 1e30, 1e30]])])


@pytest.mark.parametrize("strides", [(4, 8, 16, 32), (8, 16), (14,)])
@pytest.mark.parametrize(("height", "width"), [(97, 130), (64, 64)])
@pytest.mark.parametrize("side", [7, 14])
def test_it_is_roi_align_on_each_boxs_own_level(side: int, strides: tuple[int, ...], height: int, width: int) -> None:
    generator = torch.Generator().manual_seed(1)
    pyramid = [torch.randn(2, 5, -(-height // stride), -(-width // stride), generator=generator) for stride in strides]
    given = boxes(height, width)
    image = torch.randint(2, (len(given),), generator=generator)
    level_of = torch.randint(len(strides), (len(given),), generator=generator)
    rois = torch.cat([image[:, None].float(), given], 1)
    found = gathered(pyramid, strides, rois, level_of, side, 14 // side)
    for level, (feature, stride) in enumerate(zip(pyramid, strides, strict=True)):
        wanted = roi_align(feature, rois, side, 1 / stride, sampling_ratio=14 // side, aligned=True)
        torch.testing.assert_close(found[level_of == level], wanted[level_of == level], atol=2e-4, rtol=0)
    assert found[-4].abs().max() > 0
    assert found[-2].abs().max() == 0  # far outside


def test_sums_are_the_same_in_an_exported_graph(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(2)
    cells = torch.randn(50, 6, generator=generator, requires_grad=True)
    index, share = torch.randint(50, (3, 7, 7, 4), generator=generator), torch.rand(3, 7, 7, 4, generator=generator)
    found = weighted_sums(cells, index, share)
    [gradient] = torch.autograd.grad(found.square().sum(), cells)
    monkeypatch.setattr(torch.compiler, "is_exporting", lambda: True)
    exported = weighted_sums(cells, index, share)
    torch.testing.assert_close(found, exported)
    torch.testing.assert_close(gradient, torch.autograd.grad(exported.square().sum(), cells)[0])


def test_no_boxes_give_nothing_and_gradients_of_zero() -> None:
    feature = torch.randn(2, 5, 8, 8, requires_grad=True)
    found = gathered([feature], [4], torch.zeros(0, 5), torch.zeros(0).long(), 14, 1)
    assert found.shape == (0, 5, 14, 14)
    found.sum().backward()
    assert feature.grad is not None
    assert not feature.grad.any()
