"""What counts as a difference between an exported file and torch."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from refinebox.detection.detector import Detector
from refinebox.detection.output import Detections
from refinebox.refinement.exportable import PARTS, Features, Whole
from refinebox.refinement.proof import HALF, WHOLE, Bar, Proof, differences, of_detections, of_queries, prove
from refinebox.refinement.quality import Quality
from refinebox.refinement.refined_detector import RefinedDetector
from refinebox.refinement.refiner import Refiner


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


@pytest.fixture
def upgraded(detector: Detector) -> RefinedDetector:
    torch.manual_seed(0)
    refiner = Refiner(detector.channels, detector.strides)
    nn.init.normal_(refiner.bboxes_refiner.bboxes_deltas.weight, std=0.1)
    refiner.quality = Quality(refiner.steps, len(detector.category_ids))
    return RefinedDetector(detector, refiner, top=5)


@pytest.mark.parametrize("name", PARTS)
def test_all_that_comes_out_is_compared(name: str, upgraded: RefinedDetector) -> None:
    """Every output of every part, changed a little in the last image, is refused."""
    part = PARTS[name](upgraded)
    arguments = part.examples(2, 96, 128)
    wanted = part(*arguments)
    assert max(differences(wanted, wanted, arguments, part, WHOLE).values()) == 0
    for output, tensor in wanted.items():
        wrong = tensor.clone()
        wrong[-1, -1] += 1 if output == "labels" else 0.01 * tensor.abs().max()
        found = differences({**wanted, output: wrong}, wanted, arguments, part, WHOLE)
        assert any(value > getattr(WHOLE, kind) for kind, value in found.items()), output
        with pytest.raises(ValueError, match=rf"^the exported \S+ returns .*'{output}': \(1, .*please report it$"):
            differences({**wanted, output: tensor[:1]}, wanted, arguments, part, WHOLE)
        lacking = {other: each for other, each in wanted.items() if other != output}
        with pytest.raises(ValueError, match=r"returns .* expected .* as torch does; nothing is written"):
            differences(lacking, wanted, arguments, part, WHOLE)


def test_a_wrong_label_is_an_error(upgraded: RefinedDetector) -> None:
    part = Whole(upgraded)

    def run(arguments: tuple[Tensor, ...]) -> dict[str, Tensor]:
        outputs = part(*arguments)
        outputs["labels"][2:] += 1
        return outputs

    assert prove(lambda arguments: part(*arguments), part).scores == 0
    with pytest.raises(ValueError, match=r"differs from torch by up to 0 pixels and 0\.\d+ of a score"):
        prove(run, part)


IDS = torch.tensor([2, 5, 90])


def chosen(boxes: Tensor, scores: Tensor, count: int = 5) -> Detections:
    """The best pairs of queries and categories."""
    best, index = scores.flatten().topk(count)
    return Detections(boxes[index // 3], best, IDS[index % 3])


def apart(
    found: Detections, boxes: Tensor, scores: Tensor, bar: Bar = WHOLE, once: bool = False
) -> tuple[float, float]:
    return of_detections(found, chosen(boxes, scores).scores, boxes, scores, IDS, bar, once)


def test_equal_detections_may_trade_places_or_stand_for_one_another(found: tuple[Tensor, Tensor]) -> None:
    boxes, scores = found
    fourth, fifth, sixth = scores.flatten().topk(6).indices[3:].tolist()
    scores.view(-1)[[fifth, sixth]] = scores.flatten()[fourth].clone()
    choice = chosen(boxes, scores, 6)
    for order in ([0, 1, 2, 3, 4], [0, 1, 2, 4, 3], [0, 1, 2, 5, 3], [0, 1, 2, 4, 5]):
        other = Detections(choice.boxes[order], choice.scores[order] + 1e-6, choice.labels[order])
        assert apart(other, boxes, scores) == (0, pytest.approx(1e-6, rel=0.1))


@pytest.mark.parametrize("order", [[0, 1, 2, 3, 3], [0, 0, 2, 3, 4], [1, 0, 2, 3, 4], [1, 2, 3, 4, 5]])
def test_detections_that_are_there_twice_or_late_or_not_are_a_difference(
    order: list[int], found: tuple[Tensor, Tensor]
) -> None:
    boxes, scores = found
    choice = chosen(boxes, scores, 6)
    assert max(apart(Detections(choice.boxes[order], choice.scores[order], choice.labels[order]), boxes, scores)) > 0.01
    twice = Detections(choice.boxes[order], choice.scores[:5], choice.labels[order])
    assert max(apart(twice, boxes, scores)) > 0.01


def test_a_query_gives_one_detection_where_it_has_its_best_label(found: tuple[Tensor, Tensor]) -> None:
    boxes, scores = found
    scores[0, :2] = scores.max() + 0.1
    best, column = scores[[0, 0, 1, 2, 3]].max(-1)
    twice = Detections(boxes[[0, 0, 1, 2, 3]], best, IDS[column])
    twice.labels[1] = 5
    assert apart(twice, boxes, scores, once=True)[0] > 1


def test_detections_that_are_noise_do_not_count_in_half_precision(found: tuple[Tensor, Tensor]) -> None:
    boxes, scores = found
    scores.view(-1)[scores.flatten().topk(18).indices[3:]] = 0.02
    choice = chosen(boxes, scores)
    moved = Detections(choice.boxes + torch.tensor([0.1, 0.1, 0.1, 9, 9])[:, None], choice.scores, choice.labels)
    assert apart(moved, boxes, scores, HALF) == (pytest.approx(0.1, abs=1e-4), 0)
    assert apart(moved, boxes, scores)[0] > 1
    assert apart(Detections(moved.boxes, moved.scores * torch.nan, moved.labels), boxes, scores, HALF)[1] != 0


def test_a_proof_says_what_it_knows() -> None:
    assert Proof(0.01, 2e-6, None, (), ()).told() == "0.01 pixels and 2e-06 of a score"
    assert Proof(None, None, 3e-7, (), ()).told() == "3e-07 of a map's largest cell"
