"""The assignment against a search over all of them."""

from itertools import permutations

import pytest
import torch
from torchvision.ops import box_convert, generalized_box_iou

from refinebox.data.batches import Target
from refinebox.refinement.matching import focal_cost, giou_cost, match


def example(queries: int = 5, objects: int = 3) -> tuple[torch.Tensor, torch.Tensor, Target]:
    torch.manual_seed(3)
    boxes = torch.rand(1, queries, 4) * 0.4 + 0.2
    return (
        torch.rand(1, queries, 4),
        boxes,
        Target(torch.rand(objects, 4) * 0.4 + 0.2, torch.tensor([1, 3, 0][:objects])),
    )


@pytest.mark.parametrize("classification", ["sigmoid", "softmax"])
def test_finds_the_cheapest_of_all_assignments(classification: str) -> None:
    scores, boxes, target = example()
    matches = match(scores, boxes, [target], classification)  # type: ignore[arg-type]

    def cost(query: int, index: int) -> float:
        p = scores[0, query, target.columns[index]]
        class_cost = -p if classification == "softmax" else 2 * focal_cost(p)
        corners = [box_convert(box[None], "cxcywh", "xyxy") for box in (boxes[0, query], target.boxes[index])]
        l1 = (boxes[0, query] - target.boxes[index]).abs().sum()
        return float(class_cost + 5 * l1 - 2 * generalized_box_iou(*corners)[0, 0])

    totals = {
        chosen: sum(cost(query, index) for index, query in enumerate(chosen)) for chosen in permutations(range(5), 3)
    }
    found = tuple(matches.query[matches.object.argsort()].tolist())
    assert found == min(totals, key=totals.__getitem__)


def test_pairs_carry_their_objects() -> None:
    scores, boxes, target = example()
    matches = match(scores.repeat(2, 1, 1), boxes.repeat(2, 1, 1), [target, target], "sigmoid")
    assert matches.image.tolist() == [0, 0, 0, 1, 1, 1]
    assert torch.equal(matches.boxes, target.boxes[matches.object])
    assert torch.equal(matches.columns, target.columns[matches.object])
    assert torch.equal(matches.query[:3], matches.query[3:])


def test_images_without_objects_match_nothing() -> None:
    scores, boxes, target = example()
    empty = Target(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64))
    assert len(match(scores, boxes, [empty], "sigmoid").image) == 0
    both = match(scores.repeat(2, 1, 1), boxes.repeat(2, 1, 1), [empty, target], "sigmoid")
    assert both.image.tolist() == [1, 1, 1]


def test_more_objects_than_queries_match_every_query() -> None:
    scores, boxes, target = example(queries=2)
    matches = match(scores, boxes, [target], "sigmoid")
    assert matches.query.tolist() == [0, 1]
    assert len(set(matches.object.tolist())) == 2


def test_giou_cost_is_torchvisions() -> None:
    _, boxes, target = example()
    wanted = -generalized_box_iou(box_convert(boxes[0], "cxcywh", "xyxy"), box_convert(target.boxes, "cxcywh", "xyxy"))
    torch.testing.assert_close(giou_cost(boxes, target.boxes[None])[0], wanted, atol=1e-4, rtol=0)


def test_boxes_without_area_have_a_finite_cost() -> None:
    scores, boxes, target = example()
    assert len(match(scores, torch.zeros_like(boxes), [target], "sigmoid").query) == 3


def test_predictions_that_are_not_finite_are_refused() -> None:
    scores, boxes, target = example()
    with pytest.raises(FloatingPointError, match="scores or boxes are not finite"):
        match(scores, boxes * float("nan"), [target], "sigmoid")
