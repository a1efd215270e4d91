"""The final choice of detections, against torchvision's suppression and by hand."""

import pytest
import torch
from torch import Tensor
from torchvision.ops import nms

from refinebox.detection.choice import Choice, choose

SCORES = torch.tensor([[0.9, 0.2], [0.1, 0.8], [0.3, 0.7], [0.0, 0.0]])
BOXES = torch.tensor([[0.0, 0, 10, 10], [1, 0, 11, 10], [50, 50, 60, 60], [0, 0, 1, 1]])


def pairs(choice: Choice, scores: Tensor = SCORES, boxes: Tensor = BOXES) -> list[tuple[int, int]]:
    query, column, score, _ = choose(choice, scores, boxes)
    assert torch.equal(scores[query, column], score)
    return list(zip(query.tolist(), column.tolist(), strict=True))


def test_the_best_pairs_come_first() -> None:
    assert pairs(Choice(limit=4)) == [(0, 0), (1, 1), (2, 1), (2, 0)]
    assert len(pairs(Choice())) == SCORES.numel()


def test_every_query_has_its_best_category() -> None:
    assert pairs(Choice("queries")) == [(0, 0), (1, 1), (2, 1), (3, 0)]
    assert pairs(Choice("queries", above=0.75)) == [(0, 0), (1, 1)]


def test_scores_at_the_threshold_take_no_part() -> None:
    assert pairs(Choice(above=0.7)) == [(0, 0), (1, 1)]


@pytest.mark.parametrize("seed", range(5))
def test_suppression_is_torchvisions_in_each_category(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    corners = torch.rand(60, 2, generator=generator) * 40
    boxes = torch.cat([corners, corners + 5 + torch.rand(60, 2, generator=generator) * 30], dim=1)
    scores = torch.rand(60, 3, generator=generator)
    found = pairs(Choice("suppression", iou=0.4, above=0.1), scores, boxes)
    for column in range(3):
        kept = nms(boxes, scores[:, column], 0.4)
        expected = [query for query in kept.tolist() if scores[query, column] > 0.1]
        assert [query for query, found_column in found if found_column == column] == expected


def test_suppression_looks_at_where_boxes_are_now() -> None:
    apart, together = BOXES.clone(), BOXES.clone()
    together[2] = together[1]
    choice = Choice("suppression", iou=0.5, above=0.5)
    assert pairs(choice, boxes=apart) == [(0, 0), (1, 1), (2, 1)]
    assert pairs(choice, boxes=together) == [(0, 0), (1, 1)]


def test_rows_that_are_not_used_are_never_suppressors() -> None:
    boxes = BOXES.clone()
    boxes[3] = boxes[0]
    assert (3, 0) not in pairs(Choice("suppression", above=0.0), boxes=boxes)
    assert (0, 0) in pairs(Choice("suppression", above=0.0), boxes=boxes)


def test_the_limits_are_kept() -> None:
    assert len(pairs(Choice("suppression", iou=1.0, limit=2))) == 2
    assert len(pairs(Choice("suppression", iou=1.0, candidates=3))) == 3
