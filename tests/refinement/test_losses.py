"""Losses and gradients against the authors' own code."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from recorded_refiners import PUBLISHED, reference
from torch import Tensor
from torchvision.ops import box_convert, generalized_box_iou, roi_align

from refinebox.data.batches import Target
from refinebox.refinement import pooling
from refinebox.refinement.losses import box_losses, refinement_losses
from refinebox.refinement.matching import match
from refinebox.refinement.refiner import Refiner

CASES = ["train", "train_one_empty_image", "train_all_empty"]


def targets_of(case: dict[str, Any]) -> list[Target]:
    return [Target(target["boxes"], target["labels"]) for target in case["targets"]]


@pytest.mark.parametrize("name", PUBLISHED)
@pytest.mark.parametrize("which", CASES)
def test_matches_and_losses_equal_the_authors(shared: Path, name: str, which: str) -> None:
    recorded, features, refiner = reference(shared, name)
    case = recorded[which]
    softmax = recorded["meta"]["softmax_detector"]
    logits = recorded["pred_logits"]
    scores = logits.softmax(-1)[..., :-1] if softmax else logits.sigmoid()
    matches = match(scores, recorded["pred_boxes"], targets_of(case), "softmax" if softmax else "sigmoid")
    for index, (queries, objects) in enumerate(case["matched_indices"]):
        assert torch.equal(matches.query[matches.image == index], queries)
        assert torch.equal(matches.object[matches.image == index], objects)
    losses = recorded_losses(recorded, case, features, refiner)
    assert losses.keys() == case["losses"].keys()
    for key, loss in losses.items():
        assert loss.item() == pytest.approx(float(case["losses"][key]), abs=1e-5)


@pytest.mark.parametrize("name", PUBLISHED)
@pytest.mark.parametrize("which", CASES)
def test_gradients_equal_the_authors(shared: Path, name: str, which: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """In one way of rounding, for a ReLU that stands at zero falls to either side by that alone.

    So torchvision's operator, which is the authors', may round for ours, if in double precision both agree to 1e-9.
    """
    norms, found = reference(shared, name)[0][which]["grad_norms"], {}
    for way, precision in (
        ("ours", torch.float32),
        ("ours", torch.float64),
        ("theirs", torch.float32),
        ("theirs", torch.float64),
    ):
        recorded, features, refiner = reference(shared, name)
        refiner.to(precision)
        with monkeypatch.context() as patch:
            if way == "theirs":
                patch.setattr(pooling, "gathered", pooled_by_torchvision)
            losses = recorded_losses(recorded, recorded[which], [each.to(precision) for each in features], refiner)
            torch.stack(list(losses.values())).sum().backward()
        found[way, precision] = {key: parameter.grad.norm().item() for key, parameter in refiner.named_parameters()}
        assert found[way, precision].keys() == norms.keys()
    errors = [
        max(abs(gradients[key] - float(norm)) / max(float(norm), 1e-2) for key, norm in norms.items())
        for gradients in found.values()
    ]
    assert min(errors) < 1e-5
    for key, gradient in found["ours", torch.float64].items():
        assert gradient == pytest.approx(found["theirs", torch.float64][key], rel=1e-9, abs=1e-12), key


def pooled_by_torchvision(
    maps: list[Tensor], strides: list[int], rois: Tensor, level_of: Tensor, side: int, samples: int
) -> Tensor:
    """As ``gathered``, of one level."""
    pooled: Tensor = roi_align(maps[0].contiguous(), rois, side, 1 / strides[0], samples, aligned=True)
    return pooled


def recorded_losses(
    recorded: dict[str, Any], case: dict[str, Any], features: list[Tensor], refiner: Refiner
) -> dict[str, Tensor]:
    """The losses of every step for the recorded matches, in the refiner's precision."""
    pairs = case["matched_indices"]
    image = torch.cat([torch.full_like(queries, index) for index, (queries, _) in enumerate(pairs)])
    query = torch.cat([queries for queries, _ in pairs])
    wanted = torch.cat([target["boxes"][objects] for target, (_, objects) in zip(case["targets"], pairs, strict=True)])
    boxes = recorded["pred_boxes"][image, query].to(features[0])
    steps = refiner.refine(features, boxes, image, torch.tensor(recorded["image_sizes"]))
    return refinement_losses(steps, wanted.to(features[0]), case["num_boxes"])


def test_box_losses_are_5_l1_and_2_giou() -> None:
    torch.manual_seed(0)
    boxes, wanted = torch.rand(6, 4) * 0.4 + 0.3, torch.rand(6, 4) * 0.4 + 0.3
    losses = box_losses(boxes, wanted, count=3)
    giou = generalized_box_iou(box_convert(boxes, "cxcywh", "xyxy"), box_convert(wanted, "cxcywh", "xyxy")).diagonal()
    assert losses["loss_bbox"].item() == pytest.approx(5 * (boxes - wanted).abs().sum().item() / 3, rel=1e-6)
    assert losses["loss_giou"].item() == pytest.approx(2 * (1 - giou).sum().item() / 3, rel=1e-4)


def test_perfect_boxes_cost_nothing() -> None:
    boxes = torch.tensor([[0.5, 0.5, 0.2, 0.3]])
    assert sum(loss.item() for loss in box_losses(boxes, boxes, 1).values()) == pytest.approx(0, abs=1e-4)


def test_relative_losses_are_in_the_objects_sides() -> None:
    wanted = torch.tensor([[0.5, 0.5, 0.2, 0.4]])
    boxes = torch.tensor([[0.52, 0.46, 0.4, 0.2]])
    found = box_losses(boxes, wanted, 1, "relative")["loss_bbox"].item()
    assert found == pytest.approx(0.02 / 0.2 + 0.04 / 0.4 + 2 * math.log(2), rel=1e-5)
    tenth = box_losses(boxes / 10, wanted / 10, 1, "relative")  # the same mistake in a tenth of the size
    assert tenth["loss_bbox"].item() == pytest.approx(found, rel=1e-4)


def test_a_box_without_a_side_costs_a_finite_amount() -> None:
    boxes = torch.tensor([[0.5, 0.5, 0.0, 0.3]], requires_grad=True)
    loss = sum(box_losses(boxes, torch.tensor([[0.5, 0.5, 0.2, 0.0]]), 1, "relative").values())
    loss.backward()  # type: ignore[union-attr]
    assert torch.isfinite(loss)  # type: ignore[arg-type]
    assert boxes.grad is not None
    assert boxes.grad.isfinite().all()
