"""Parts on trial: what they replace, and that they leave nothing behind."""

from types import ModuleType

import pytest
import torch
from torch import Tensor

from refinebox.boxes import paired_iou
from refinebox.refinement import head, refiner
from refinebox.refinement.architecture import SPATIAL
from refinebox.refinement.refiner import Refiner

CHANNELS, STRIDES = (4, 6, 8), (8, 16, 32)


def maps() -> list[Tensor]:
    return [torch.randn(1, each, 96 // stride, 128 // stride) for each, stride in zip(CHANNELS, STRIDES, strict=True)]


@pytest.mark.parametrize("part", ["bifpn", "grouped", "sized", "adjacent_levels"])
def test_a_refiner_with_the_part_learns(script: ModuleType, part: str) -> None:
    arguments = {"bifpn": (2,), "grouped": (4,), "sized": (32, 2)}
    context = getattr(script, part)(*arguments[part]) if part in arguments else getattr(script, part)
    torch.manual_seed(0)
    plain = Refiner(CHANNELS, STRIDES, 2, SPATIAL)
    with context(None):
        other = Refiner(CHANNELS, STRIDES, 2, SPATIAL)
        boxes = other(maps(), torch.tensor([[[0.5, 0.5, 0.3, 0.4]]]), torch.tensor([[96, 128]]))
        boxes[-1].sum().backward()
    count = [sum(parameter.numel() for parameter in each.parameters()) for each in (plain, other)]
    assert count[0] != count[1]
    assert refiner.FeaturePyramid is script.pyramid.FeaturePyramid
    assert refiner.BoxHead is head.BoxHead
    assert head.WIDTH == 64


def test_even_jitter_spreads_overlaps_evenly(script: ModuleType) -> None:
    torch.manual_seed(0)
    boxes = torch.tensor([[0.5, 0.5, 0.2, 0.3]]).repeat(2000, 1)
    copies = script.uniform_overlap(boxes, 2 * torch.rand(1, 2000, 4) - 1)
    overlaps = paired_iou(copies[0], boxes)
    assert overlaps.min() > 0.48
    for share in (0.25, 0.5, 0.75):
        assert overlaps.quantile(share).item() == pytest.approx(0.5 + share / 2, abs=0.02)


def test_positives_are_near_an_object(script: ModuleType) -> None:
    objects = torch.tensor([[0.3, 0.3, 0.2, 0.2], [0.7, 0.7, 0.2, 0.2]])
    boxes = torch.tensor([[0.31, 0.3, 0.2, 0.2], [0.7, 0.72, 0.2, 0.2], [0.5, 0.5, 0.2, 0.2], [0.42, 0.3, 0.2, 0.2]])
    rows, nearest = script.positives(boxes, objects, "0.5")
    assert rows.tolist() == [0, 1]
    assert nearest.tolist() == [0, 1]
    rows, nearest = script.positives(boxes, objects, "atss")
    assert set(rows.tolist()) <= {0, 1, 3}


def test_losses_are_weighted_and_restored(script: ModuleType) -> None:
    boxes, wanted = torch.tensor([[0.5, 0.5, 0.2, 0.2]]), torch.tensor([[0.6, 0.5, 0.2, 0.2]])
    losses = lambda: script.losses.box_losses(boxes, wanted, 1, "relative")  # noqa: E731
    own = losses()
    with script.weighted(3, 0)(None):
        other = losses()
    assert other["loss_bbox"].item() == pytest.approx(3 * own["loss_bbox"].item())
    assert other["loss_giou"].item() == 0
    assert losses() == own
