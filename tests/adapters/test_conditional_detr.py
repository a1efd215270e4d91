"""What only Conditional DETR has: groups of queries, reference points with their epsilon, and 100 detections."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from refinebox.adapters.conditional_detr import ConditionalDetr
from refinebox.adapters.parts.sizes import Sizes
from torch import Tensor

from refinebox.detection.output import DetectorOutput
from refinebox.detection.published import DETECTORS
from refinebox.detection.zoo import load_detector

IMAGES, SIZES = torch.linspace(-2, 2, 3 * 64 * 80).view(1, 3, 64, 80), torch.tensor([[64, 80]])


def state(sizes: Sizes) -> dict[str, Tensor]:
    torch.manual_seed(0)
    return ConditionalDetr(sizes).state_dict()


def test_only_the_first_group_of_queries_is_used(tiny: Sizes, tmp_path: Path) -> None:
    grouped = state(replace(tiny, queries=11 * 5))
    torch.save(grouped, tmp_path / "grouped.pth")
    torch.save({**grouped, "query_embed.weight": grouped["query_embed.weight"][:5]}, tmp_path / "first.pth")
    output = load_detector("group-detr-r50", tmp_path / "grouped.pth")(IMAGES, SIZES)
    wanted = load_detector("conditional-detr-r50-detrex", tmp_path / "first.pth")(IMAGES, SIZES)
    assert output.boxes.shape == (1, 5, 4)
    assert torch.equal(output.boxes, wanted.boxes)
    assert torch.equal(output.logits, wanted.logits)


def saturated(sizes: Sizes) -> dict[str, Tensor]:
    """All reference points are within 1e-4 of the image's upper left corner, and boxes do not move."""
    weights = state(sizes)
    weights["transformer.decoder.ref_point_head.layers.1.bias"] = torch.full((2,), -9.0)
    weights["transformer.decoder.ref_point_head.layers.1.weight"].zero_()
    weights["bbox_embed.layers.2.weight"].zero_()
    weights["bbox_embed.layers.2.bias"].zero_()
    return weights


@pytest.mark.parametrize(
    ("name", "centre"), [("conditional-detr-r50", 1 / (1 + torch.e**9)), ("conditional-detr-r50-detrex", 1e-3)]
)
def test_the_epsilon_is_that_of_the_training(name: str, centre: float, tiny: Sizes, tmp_path: Path) -> None:
    torch.save(saturated(tiny), tmp_path / "weights.pth")
    boxes = load_detector(name, tmp_path / "weights.pth")(IMAGES, SIZES).boxes
    torch.testing.assert_close(boxes[..., :2], torch.full((1, 12, 2), centre), rtol=2e-3, atol=0)
    torch.testing.assert_close(boxes[..., 2:], torch.full((1, 12, 2), 0.5))


def test_names_of_weights_that_detrex_trained_say_its_epsilon() -> None:
    epsilons = {
        name: entry.settings.get("epsilon", 1e-5)
        for name, entry in DETECTORS.items()
        if entry.family == "conditional_detr"
    }
    assert {name for name, epsilon in epsilons.items() if epsilon == 1e-3} == {
        "conditional-detr-r50-detrex",
        "group-detr-r50",
    }


@pytest.mark.parametrize(("backbone", "count"), [("backbone.0.body.", 100), ("backbone.body.", 300)])
def test_as_many_detections_as_its_code_returns(backbone: str, count: int, tiny: Sizes, tmp_path: Path) -> None:
    """detrex's names make it return detrex's number; see test_layouts for their other names."""
    weights = state(replace(tiny, queries=100))
    renamed: dict[str, Any] = {key.replace("backbone.0.body.", backbone): x for key, x in weights.items()}
    torch.save(renamed, tmp_path / "weights.pth")
    detector = load_detector("conditional-detr-r50", tmp_path / "weights.pth")
    output: DetectorOutput = detector(IMAGES, SIZES)
    # in the middle of the image, so that clipping drops none
    boxes = torch.full_like(output.boxes, 0.5)
    (found,) = detector.postprocess(detector.scores(output.logits), boxes, SIZES)
    assert len(found.scores) == count
