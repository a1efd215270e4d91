"""The published way to the losses of a training step, and ours, find the same."""

from dataclasses import replace
from types import ModuleType

import pytest
import torch
from torch import Tensor
from torchvision.ops import generalized_box_iou

from refinebox.data.annotations import CocoData
from refinebox.data.batches import Batch, Target, collate
from refinebox.data.dataset import CocoDataset
from refinebox.data.input_format import InputFormat
from refinebox.detection.detector import Detector
from refinebox.refinement.refiner import Refiner
from refinebox.training.learner import observed_losses
from refinebox.training.observation import observe


@pytest.fixture
def batch(training: CocoData) -> Batch:
    columns = {category: column for column, category in enumerate(training.categories)}
    dataset = CocoDataset(training, columns, form=InputFormat(short_side=64, long_side=128))
    return collate([dataset[index] for index in range(4)], dataset.form).to(torch.device("cpu"))


def with_gradients(refiner: Refiner, losses: dict[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    refiner.zero_grad()
    torch.stack(list(losses.values())).sum().backward()
    return losses, {name: parameter.grad for name, parameter in refiner.named_parameters()}


@pytest.mark.parametrize("pyramid_at_every_move", [False, True])
@pytest.mark.parametrize("empty", [(), (1,), (0, 1, 2, 3)], ids=["objects", "one empty image", "no objects"])
def test_losses_and_gradients_equal_ours(
    script: ModuleType, detector: Detector, batch: Batch, empty: tuple[int, ...], pyramid_at_every_move: bool
) -> None:
    none = Target(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64))
    batch = replace(batch, targets=[none if i in empty else target for i, target in enumerate(batch.targets)])
    assert len({len(target.boxes) for target in batch.targets}) > 1 or len(empty) == 4  # some slots hold zeros
    torch.manual_seed(0)
    refiner = Refiner(detector.channels, detector.strides)
    ours, our_gradients = with_gradients(refiner, observed_losses(refiner, observe(detector, batch)))
    output = detector(batch.images, batch.sizes)
    losses, gradients = with_gradients(
        refiner,
        script.reference_losses(refiner, output, batch, pyramid_at_every_move=pyramid_at_every_move),
    )
    torch.testing.assert_close(losses, ours, atol=1e-5, rtol=0)
    torch.testing.assert_close(gradients, our_gradients, atol=1e-5, rtol=1e-4)
    assert (sum(losses.values()) > 0) == (len(empty) < 4)


def test_the_detectors_output_is_left_alone(script: ModuleType, detector: Detector, batch: Batch) -> None:
    output = detector(batch.images, batch.sizes)
    before = output.boxes.clone(), output.logits.clone()
    script.reference_losses(Refiner(detector.channels, detector.strides), output, batch)
    assert torch.equal(output.boxes, before[0])
    assert torch.equal(output.logits, before[1])


def test_giou_equals_torchvisions(script: ModuleType) -> None:
    torch.manual_seed(0)
    boxes, others = torch.rand(20, 4) + 0.2, torch.rand(30, 4) + 0.2
    corners = [torch.cat([b[:, :2] - b[:, 2:] / 2, b[:, :2] + b[:, 2:] / 2], 1) for b in (boxes, others)]
    expected = generalized_box_iou(*corners)
    torch.testing.assert_close(script.pairwise_giou(boxes, others), expected, atol=1e-4, rtol=0)
