"""Voting moves what suppression keeps to where its neighbours say, and touches nothing else."""

import pytest
import torch
from torch import Tensor
from torchvision.ops import batched_nms, box_convert, box_iou

from refinebox.detection.choice import Choice, choose
from refinebox.detection.voting import voted


def crowd(count: int = 60) -> tuple[Tensor, Tensor, Tensor]:
    """Boxes ``[N, 4]`` (xyxy) around three places, with scores and two labels."""
    generator = torch.Generator().manual_seed(0)
    centres = torch.tensor([[50.0, 50.0, 40, 30], [70.0, 52.0, 36, 30], [200.0, 80.0, 20, 60]])
    place = torch.randint(3, (count,), generator=generator)
    boxes = centres[place] * (1 + 0.08 * torch.randn(count, 4, generator=generator))
    scores, labels = torch.rand(count, generator=generator), torch.randint(2, (count,), generator=generator)
    return box_convert(boxes, "cxcywh", "xyxy"), scores, labels


@pytest.mark.parametrize("least", [0.5, 0.75, 0.9])
def test_equals_the_mean_that_is_worked_out_box_by_box(least: float) -> None:
    boxes, scores, labels = crowd()
    kept = batched_nms(boxes, scores, labels, 0.65)
    found = voted(boxes, scores, labels, kept, least)
    moved = 0
    for place, index in enumerate(kept.tolist()):
        total, sums = 0.0, torch.zeros(4, dtype=torch.float64)
        for other in range(len(boxes)):
            iou = box_iou(boxes[None, index], boxes[None, other]).item()
            if iou >= least and labels[other] == labels[index]:
                total += iou * scores[other].item()
                sums += iou * scores[other].item() * boxes[other].double()
        torch.testing.assert_close(found[place], (sums / total).float(), rtol=1e-5, atol=1e-3)
        moved += not torch.allclose(found[place], boxes[index], atol=1e-2)
    assert moved > 2 or least == 0.9


def test_noise_around_a_box_is_averaged_out() -> None:
    """Candidates that are each off by chance agree on the middle, nearer to the truth than the surest of them."""
    truth = torch.tensor([[100.0, 100.0, 180.0, 160.0]])
    errors: dict[str, list[float]] = {"surest": [], "voted": []}
    for seed in range(20):
        generator = torch.Generator().manual_seed(seed)
        boxes = truth + 4 * torch.randn(30, 4, generator=generator)
        scores = torch.rand(30, generator=generator)
        labels = torch.zeros(30, dtype=torch.int64)
        kept = batched_nms(boxes, scores, labels, 0.5)
        errors["surest"].append((boxes[kept[0]] - truth).abs().mean().item())
        errors["voted"].append((voted(boxes, scores, labels, kept)[0] - truth).abs().mean().item())
    assert sum(errors["voted"]) < 0.5 * sum(errors["surest"])


def test_a_box_alone_stays() -> None:
    boxes = torch.tensor([[0.0, 0.0, 10.0, 10.0], [1.0, 0.0, 10.0, 10.0], [50.0, 50.0, 60.0, 60.0]])
    found = voted(boxes, torch.tensor([0.9, 0.8, 0.0]), torch.tensor([1, 2, 1]), torch.tensor([0, 2]))
    torch.testing.assert_close(found, boxes[[0, 2]])  # another label does not vote, and a score of 0 moves nothing


def test_nothing_found_is_nothing_voted() -> None:
    empty = torch.empty(0)
    assert voted(torch.empty(0, 4), empty, empty.long(), empty.long()).shape == (0, 4)


def test_the_final_choice_votes_where_it_suppresses() -> None:
    boxes, scores, labels = crowd()
    table = torch.zeros(len(boxes), 2).scatter(1, labels[:, None], scores[:, None])
    plain = choose(Choice("suppression", iou=0.65, above=0.0), table, boxes)
    voting = choose(Choice("suppression", iou=0.65, above=0.0, voting=0.75), table, boxes)
    assert torch.equal(voting.query, plain.query)
    assert torch.equal(voting.score, plain.score)
    torch.testing.assert_close(voting.boxes, voted(boxes, scores, labels, plain.query))
    assert torch.equal(plain.boxes, boxes[plain.query])
