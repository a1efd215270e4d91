"""What counts as a difference between an exported file and torch."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from refinebox.detection.detector import Detector
from refinebox.refinement.parts import Features
from refinebox.refinement.proof import HALF, WHOLE, Proof, of_queries, prove


@pytest.fixture
def found() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return 100 * torch.rand(6, 4, generator=generator), torch.rand(6, 3, generator=generator)


def test_queries_may_trade_places_by_rounding(found: tuple[Tensor, Tensor]) -> None:
    boxes, scores = found
    order = torch.tensor([0, 2, 1, 3, 5, 4])
    assert of_queries(boxes[order] + 0.01, scores[order], boxes, scores, WHOLE) == (pytest.approx(0.01, abs=1e-4), 0.0)


def test_a_box_with_anothers_score_is_a_difference(found: tuple[Tensor, Tensor]) -> None:
    boxes, scores = found
    wrong = scores.clone()
    wrong[[1, 2]] = scores[[2, 1]]
    apart = of_queries(boxes, wrong, boxes, scores, WHOLE)
    assert apart[0] > 1 or apart[1] > 0.01


def test_boxes_that_are_noise_do_not_count_in_half_precision(found: tuple[Tensor, Tensor]) -> None:
    boxes, scores = found
    scores = scores.clone()
    scores[3] = 0.01
    moved = boxes.clone()
    moved[3] += 7
    moved[4] += 0.2
    assert of_queries(moved, scores, boxes, scores, HALF) == (pytest.approx(0.2, abs=1e-4), 0.0)
    assert of_queries(moved, scores, boxes, scores, WHOLE)[0] == pytest.approx(7, abs=1e-4)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (
            lambda maps: maps * 1.01,
            r"differs from torch by up to 0\.0\d+ of a map's largest cell, expected at most 0\.0",
        ),
        (lambda maps: maps * torch.nan, "differs from torch by up to nan of a map's largest cell"),
    ],
)
def test_differences_are_errors(change: Callable[[Tensor], Tensor], expected: str, detector: Detector) -> None:
    part = Features(detector)
    with pytest.raises(ValueError, match=expected):
        prove(lambda arguments: {name: change(maps) for name, maps in part(*arguments).items()}, part)
    proof = prove(lambda arguments: part(*arguments), part)
    assert (proof.boxes, proof.maps) == (None, 0.0)


def test_a_proof_says_what_it_knows() -> None:
    assert Proof(0.01, 2e-6, None, (), ()).told() == "0.01 pixels and 2e-06 of a score"
    assert Proof(None, None, 3e-7, (), ()).told() == "3e-07 of a map's largest cell"
