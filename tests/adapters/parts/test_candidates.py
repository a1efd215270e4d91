"""The choice among candidates is the choice among all boxes, and what else is handed over is distinct."""

import pytest
import torch
from refinebox.adapters.parts.candidates import DISTINCT, ROWS, batched, considered, distinct, suppression
from torch import Tensor
from torchvision.ops import box_iou

from refinebox.detection.choice import Choice, choose


def crowd(seed: int, count: int = 2000, columns: int = 7, *, lattice: bool = False) -> tuple[Tensor, Tensor]:
    """Boxes that overlap a lot, with scores of several categories each; on a lattice many overlaps are exactly 1/2."""
    generator = torch.Generator().manual_seed(seed)
    corners = 100 * torch.rand(count, 2, generator=generator)
    sides = 10 + 40 * torch.rand(count, 2, generator=generator)
    if lattice:
        corners, sides = (corners / 7).round() * 7, torch.full_like(sides, 21)
    boxes = torch.cat([corners, corners + sides], dim=-1)
    return boxes, torch.rand(count, columns, generator=generator) ** 3


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("limit", [20, 100, 400])
@pytest.mark.parametrize("by_category", [False, True])
@pytest.mark.parametrize("lattice", [False, True])
def test_detections_among_candidates_are_those_among_all(
    seed: int, limit: int, by_category: bool, lattice: bool
) -> None:
    boxes, scores = crowd(seed, lattice=lattice)
    rows, kept = considered(scores, 0.3, 150, by_category=by_category)
    wanted = choose(Choice("suppression", limit, above=0.3, iou=0.5, candidates=10**6), kept, boxes[rows])
    choice = suppression(limit, 0.3, 0.5)
    chosen, few = distinct(boxes[rows], kept, choice)
    scale = torch.tensor([0.37, 1.21, 0.37, 1.21])  # pixels of a picture of another size
    found = choose(choice, few, boxes[rows][chosen] * scale)
    assert torch.equal(chosen[found.query], wanted.query)
    assert torch.equal(found.column, wanted.column)
    assert torch.equal(found.score, wanted.score)
    assert len(chosen) == len(chosen.unique())
    assert len(chosen) <= max(ROWS, limit)


def test_others_overlap_neither_detections_nor_one_another() -> None:
    boxes, scores = crowd(0)
    choice = suppression(20, 0.3, 0.5)
    chosen, _ = distinct(boxes, scores, choice)
    detected = choose(choice, scores, boxes).query.unique()
    others = chosen[~torch.isin(chosen, detected)]
    assert len(others) > 100
    assert box_iou(boxes[others], boxes[detected]).max() <= DISTINCT
    assert (box_iou(boxes[others], boxes[others]) - torch.eye(len(others))).max() <= DISTINCT
    best = scores.amax(-1)
    assert torch.equal(best[others], best[others].sort(descending=True).values)


def test_where_boxes_vote_the_suppressed_ones_are_handed_over_too() -> None:
    boxes, scores = crowd(0, count=600)
    choice = Choice("suppression", 20, above=0.3, iou=0.5, candidates=10**6, voting=0.75)
    wanted = choose(choice, scores, boxes)
    chosen, _ = distinct(boxes, scores, choice)
    found = choose(choice, scores[chosen], boxes[chosen])
    assert torch.equal(chosen[found.query], wanted.query)
    torch.testing.assert_close(found.boxes, wanted.boxes)
    assert not torch.equal(found.boxes, boxes[wanted.query])  # somebody did vote
    assert (box_iou(boxes[chosen], boxes[chosen]) - torch.eye(len(chosen))).max() > 0.75


def test_the_best_pairs_are_considered() -> None:
    scores = torch.tensor([[0.9, 0.2], [0.8, 0.7], [0.1, 0.6], [0.0, 0.0]])
    rows, kept = considered(scores, 0.15, 3)
    assert rows.tolist() == [0, 1]
    # 0.2 is left out by the limit, so it is 0
    torch.testing.assert_close(kept, torch.tensor([[0.9, 0.0], [0.8, 0.7]]))
    rows, kept = considered(scores, 0.15, 1, by_category=True)
    assert rows.tolist() == [0, 1]
    torch.testing.assert_close(kept, torch.tensor([[0.9, 0.0], [0.0, 0.7]]))


def test_rows_that_are_not_used_have_no_scores() -> None:
    boxes, scores = batched([(torch.rand(3, 4), torch.rand(3, 2)), (torch.zeros(0, 4), torch.zeros(0, 2))], Choice())
    assert boxes.shape == (2, ROWS, 4)
    assert scores[0, 3:].max() == scores[1].max() == 0
    assert torch.equal(boxes[1], torch.full((ROWS, 4), 0.5))
