"""The refiner against the outputs of the authors' own code, and its place in a detector."""

from pathlib import Path

import pytest
import torch
from recorded_refiners import PUBLISHED, reference
from torchvision.ops import FeaturePyramidNetwork

from refinebox.refinement.architecture import ARCHITECTURES, SPATIAL
from refinebox.refinement.refiner import Refiner


@pytest.mark.parametrize("name", PUBLISHED)
def test_equals_the_authors_refiner_at_every_step(shared: Path, name: str) -> None:
    recorded, features, refiner = reference(shared, name)
    wanted = recorded["eval"]
    top = wanted["topk_ids"].reshape(2, -1, 1).expand(-1, -1, 4)
    steps = refiner(features, recorded["pred_boxes"].gather(1, top), torch.tensor(recorded["image_sizes"]))
    assert len(steps) == len(wanted["refined"]) == 3
    for step, boxes in zip(steps, wanted["refined"], strict=True):
        torch.testing.assert_close(step, boxes.view_as(step), atol=1e-5, rtol=0)


@pytest.mark.parametrize(("channels", "count"), [((256, 512, 1024, 2048), 538_756), ((96, 192, 384, 768), 385_156)])
def test_has_the_published_size(channels: tuple[int, ...], count: int) -> None:
    assert sum(parameter.numel() for parameter in Refiner(channels).parameters()) == count


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_boxes_of_any_image_are_refined_as_in_their_own_batch(name: str) -> None:
    torch.manual_seed(0)
    refiner = Refiner((8, 8), (4, 8), architecture=ARCHITECTURES[name])
    torch.nn.init.normal_(refiner.bboxes_refiner.bboxes_deltas.weight, std=0.02)
    features = [torch.randn(2, 8, 16, 16), torch.randn(2, 8, 8, 8)]
    boxes, sizes = torch.rand(2, 5, 4) * 0.5 + 0.2, torch.tensor([[64, 64], [48, 60]])
    together = refiner(features, boxes, sizes)[-1]
    for index in range(2):
        alone = refiner(
            [feature[index : index + 1] for feature in features], boxes[index : index + 1], sizes[index : index + 1]
        )
        torch.testing.assert_close(together[index], alone[-1][0], atol=1e-6, rtol=1e-5)


def test_pyramid_equals_torchvisions() -> None:
    torch.manual_seed(0)
    refiner = Refiner((8, 16, 24, 32))
    theirs = FeaturePyramidNetwork([8, 16, 24, 32], 64)
    ours = refiner.channel_mapper.state_dict()
    theirs.load_state_dict(
        {
            f"{block}_blocks.{level - 2}.0.{part}": ours[f"fpn_{name}{level}.{part}"]
            for level in range(2, 6)
            for block, name in (("inner", "lateral"), ("layer", "output"))
            for part in ("weight", "bias")
        }
    )
    features = {str(i): torch.randn(1, c, s, s) for i, (c, s) in enumerate([(8, 25), (16, 13), (24, 7), (32, 4)])}
    wanted = list(theirs(features).values())
    for map_, other in zip(refiner.channel_mapper(list(features.values())), wanted, strict=True):
        torch.testing.assert_close(map_, other, atol=1e-5, rtol=1e-5)


def test_channels_and_strides_must_pair() -> None:
    with pytest.raises(ValueError, match="3 channel counts for 4 strides"):
        Refiner((8, 8, 8))


def test_a_new_spatial_refiner_moves_nothing() -> None:
    boxes, sizes = torch.rand(2, 5, 4) * 0.5 + 0.2, torch.tensor([[64, 64], [48, 60]])
    features = [torch.randn(2, 8, 16, 16), torch.randn(2, 8, 8, 8)]
    steps = Refiner((8, 8), (4, 8), architecture=SPATIAL)(features, boxes, sizes)
    assert all(torch.equal(step, boxes) for step in steps)


@pytest.mark.parametrize(("strides", "cells"), [((14,), (10,)), ((16,), (9,)), ((7, 14), (20, 10))])
def test_strides_may_be_anything(strides: tuple[int, ...], cells: tuple[int, ...]) -> None:
    refiner = Refiner((8,) * len(strides), strides, architecture=SPATIAL)
    features = [torch.randn(1, 8, side, side) for side in cells]
    assert refiner(features, torch.rand(1, 5, 4), torch.tensor([[140, 140]]))[-1].shape == (1, 5, 4)


def test_the_spatial_head_knows_where_things_are() -> None:
    """Features that are mirrored inside the box have the same mean; only the head with places can tell them apart."""
    torch.manual_seed(0)
    heads = {name: Refiner((8, 8), (4, 8), architecture=each).bboxes_refiner for name, each in ARCHITECTURES.items()}
    for name, head in heads.items():
        blocks = torch.randn(3, 64, *[ARCHITECTURES[name].cells] * 2)
        head.res_block = torch.nn.Sequential()
        assert torch.allclose(head.summary(blocks), head.summary(blocks.flip(-1)), atol=1e-5) == (name == "published")
