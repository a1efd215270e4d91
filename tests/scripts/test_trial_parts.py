"""Parts on trial: what they replace, and that they leave nothing behind."""

from types import ModuleType

import pytest
import torch
from torch import Tensor
from torchvision.ops import box_convert

from refinebox.boxes import paired_iou
from refinebox.refinement import head, refiner
from refinebox.refinement.architecture import SPATIAL
from refinebox.refinement.refiner import Refiner

CHANNELS, STRIDES = (4, 6, 8), (8, 16, 32)


def maps() -> list[Tensor]:
    return [torch.randn(1, each, 96 // stride, 128 // stride) for each, stride in zip(CHANNELS, STRIDES, strict=True)]


PARTS = {
    "bifpn": (2,),
    "separable": None,
    "laterals_alone": None,
    "normed_groups": None,
    "not_normed": None,
    "sized": (32,),
    "adjacent_levels": None,
}


@pytest.mark.parametrize("part", PARTS)
def test_a_refiner_with_the_part_learns(script: ModuleType, part: str) -> None:
    arguments = PARTS[part]
    context = getattr(script, part) if arguments is None else getattr(script, part)(*arguments)
    torch.manual_seed(0)
    plain = Refiner(CHANNELS, STRIDES, 2, SPATIAL)
    with context(None):
        other = Refiner(CHANNELS, STRIDES, 2, SPATIAL)
        boxes = other(maps(), torch.tensor([[[0.5, 0.5, 0.3, 0.4]]]), torch.tensor([[96, 128]]))
        boxes[-1].sum().backward()
    modules = [{type(module) for module in each.modules()} for each in (plain, other)]
    count = [sum(parameter.numel() for parameter in each.parameters()) for each in (plain, other)]
    assert modules[0] != modules[1] or count[0] != count[1]
    assert refiner.FeaturePyramid is script.pyramid.FeaturePyramid
    assert refiner.BoxHead is head.BoxHead
    assert script.pyramid.CellNorm.__name__ == "CellNorm"
    assert script.pyramid.Fusion.__name__ == "Fusion"
    assert head.WIDTH == 64


def test_edges_move_alone(script: ModuleType) -> None:
    boxes = torch.tensor([[0.5, 0.5, 0.2, 0.4]])
    [found] = box_convert(script.moved_by_edges(boxes, torch.tensor([[0.1, 0.0, 0.0, -0.2]]), ""), "cxcywh", "xyxy")
    torch.testing.assert_close(found, torch.tensor([0.42, 0.3, 0.6, 0.62]))


def test_moves_of_distributions_start_at_none_and_reach_half_a_side(script: ModuleType) -> None:
    box_head = script.Distributed(placed=True, still=True, cells=7, blocks=1)
    assert box_head.moves(torch.randn(3, 64)).abs().max() < 1e-6
    with torch.no_grad():
        box_head.bboxes_deltas.bias[-1] = 100.0
    assert box_head.moves(torch.randn(3, 64))[:, 3].tolist() == pytest.approx([0.5] * 3, abs=1e-5)


def test_settled_boxes_are_the_mean_of_the_last_two_moves(script: ModuleType) -> None:
    torch.manual_seed(0)
    plain = Refiner(CHANNELS, STRIDES, 3, SPATIAL).eval()
    torch.nn.init.normal_(plain.bboxes_refiner.bboxes_deltas.weight, std=0.02)
    given = maps(), torch.tensor([[[0.5, 0.5, 0.3, 0.4]]]), torch.tensor([[96, 128]])
    steps = plain(*given)
    with script.settled(None):
        assert torch.equal(plain(*given)[-1], (steps[1] + steps[2]) / 2)
        assert torch.equal(plain.train()(*given)[-1], steps[2])


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
