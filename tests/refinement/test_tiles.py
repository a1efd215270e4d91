"""The finest level where boxes read it, against the whole."""

import pytest
import torch
from torch import Tensor

from refinebox.refinement.architecture import SPATIAL
from refinebox.refinement.pyramid import FeaturePyramid
from refinebox.refinement.refiner import Refiner
from refinebox.refinement.tiles import SIDE, TiledLevel, nearest

CHANNELS = (8, 12, 16)


def maps(height: int, width: int, count: int = 2) -> list[Tensor]:
    """Feature maps of strides 4, 8 and 16 of images of so many cells; sizes may be odd."""
    sizes = [(-(-height // scale), -(-width // scale)) for scale in (1, 2, 4)]
    return [torch.randn(count, each, *size) for each, size in zip(CHANNELS, sizes, strict=True)]


def tiled(pyramid: FeaturePyramid, features: list[Tensor]) -> TiledLevel:
    level = pyramid.where_read(features, 4)[0]
    assert isinstance(level, TiledLevel)
    return level


@pytest.fixture(params=[False, True], ids=["fpn", "fused"])
def pyramid(request: pytest.FixtureRequest) -> FeaturePyramid:
    torch.manual_seed(0)
    return FeaturePyramid(CHANNELS, fused=request.param)


@pytest.mark.parametrize(("height", "width"), [(48, 64), (41, 57), (8, 8), (3, 70)])
@torch.no_grad()
def test_what_is_read_is_as_in_the_whole(pyramid: FeaturePyramid, height: int, width: int) -> None:
    features = maps(height, width)
    whole = pyramid(features)
    level = tiled(pyramid, features)
    near = torch.tensor([[1.0, 4 * width - 30, 4 * height - 20, 4 * width - 2, 4 * height - 1]])  # [1, 5]
    for rois in (near, torch.tensor([[0.0, 0.0, 0.0, 9.0, 9.0]])):
        found = level.around(rois)
        cells = level.done.repeat_interleave(SIDE, 1).repeat_interleave(SIDE, 2)[:, None, :height, :width]
        torch.testing.assert_close(found, whole[0] * cells, atol=1e-5, rtol=1e-5)
    assert level.done[0, 0, 0]
    assert level.done[1, -1, -1]


@torch.no_grad()
def test_few_boxes_need_few_tiles_and_many_all(pyramid: FeaturePyramid) -> None:
    level = tiled(pyramid, maps(64, 64, 1))
    assert not level.around(torch.zeros(0, 5)).any()
    level.around(torch.tensor([[0.0, 40.0, 40.0, 60.0, 60.0]]))  # cells 10 to 15, and what sampling reaches
    assert level.done.sum() == 4
    level.around(torch.tensor([[0.0, 0.0, 0.0, 250.0, 250.0]]))
    assert level.done.all()


@torch.no_grad()
def test_boxes_beyond_the_border_read_along_it(pyramid: FeaturePyramid) -> None:
    level = tiled(pyramid, maps(64, 64, 1))
    level.around(torch.tensor([[0.0, -500.0, 40.0, -400.0, 44.0], [0.0, 900.0, 40.0, 1e9, 44.0]]))
    assert level.done[0, 1].tolist() == [True] + 6 * [False] + [True]


@torch.no_grad()
def test_a_refinement_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """Boxes that leave the tiles of the step before included."""
    torch.manual_seed(1)
    refiner = Refiner(CHANNELS, (4, 8, 16), 3, SPATIAL)
    torch.nn.init.normal_(refiner.bboxes_refiner.bboxes_deltas.weight, std=0.1)
    boxes = torch.rand(2, 9, 4) * torch.tensor([1.0, 1.0, 0.1, 0.1])
    features, sizes = maps(60, 80), torch.tensor([[240, 320], [200, 320]])
    found = refiner(features, boxes, sizes)
    monkeypatch.setattr(FeaturePyramid, "where_read", lambda self, features, stride: self(features))
    expected = refiner(features, boxes, sizes)
    assert (expected[0] - boxes).abs().max() > 0.01
    for here, there in zip(found, expected, strict=True):
        torch.testing.assert_close(here, there, atol=1e-4, rtol=0)


def test_gradients_are_those_of_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(2)
    refiner = Refiner(CHANNELS, (4, 8, 16), 2, SPATIAL)
    torch.nn.init.normal_(refiner.bboxes_refiner.bboxes_deltas.weight, std=0.1)
    features, sizes = maps(80, 96), torch.tensor([[320, 384], [300, 384]])
    # small boxes at two corners, and then large ones, which leave the finest level alone
    for boxes in (torch.tensor([[[0.1, 0.1, 0.05, 0.1]], [[0.9, 0.9, 0.1, 0.1]]]), torch.full((2, 1, 4), 0.6)):
        found = gradients(refiner, features, boxes, sizes)
        with monkeypatch.context() as patch:
            patch.setattr(FeaturePyramid, "where_read", lambda self, features, stride: self(features))
            expected = gradients(refiner, features, boxes, sizes)
        for name, gradient in expected.items():
            torch.testing.assert_close(found[name], gradient, atol=1e-3, rtol=1e-3, msg=name)


def gradients(refiner: Refiner, features: list[Tensor], boxes: Tensor, sizes: Tensor) -> dict[str, Tensor | None]:
    refiner.zero_grad()
    torch.stack(refiner(features, boxes, sizes)).square().sum().backward()
    return {name: parameter.grad for name, parameter in refiner.named_parameters()}


@pytest.mark.parametrize(("small", "large"), [(4, 8), (7, 13), (1, 3), (38, 75)])
def test_indices_are_those_of_interpolation(small: int, large: int) -> None:
    values = torch.randn(small)
    expected = torch.nn.functional.interpolate(values[None, None], size=large, mode="nearest")[0, 0]
    assert torch.equal(values[nearest(small, large)], expected)
