"""What refinement adds to a detector's cost: parameters, and multiplications at the detector's own input size."""

from dataclasses import dataclass

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from refinebox.data.proposals import Proposals
from refinebox.refinement.refined_detector import RefinedDetector


@dataclass(frozen=True)
class Cost:
    """Of one image.

    Attributes:
        parameters: of the refiner,
        detector_parameters: and of the detector.
        macs: multiply-adds of matrix products and convolutions in the refiner,
        detector_macs: and in the detector.
        size: (height, width) of the input, in pixels.
    """

    parameters: int
    detector_parameters: int
    macs: int
    detector_macs: int
    size: tuple[int, int]

    def told(self) -> str:
        """In words."""
        height, width = self.size
        share, macs_share = self.parameters / self.detector_parameters, self.macs / self.detector_macs
        return (
            f"refinement adds {self.parameters / 1e6:.2f} M parameters, {share:.1%} of the detector's, and "
            f"{self.macs / 1e9:.2g} G multiply-adds, {macs_share:.1%} of the detector's at {width} x {height}"
        )


def cost_of(model: RefinedDetector) -> Cost:
    """Counted while one black image of 640 x 480, brought to the detector's input size, runs through the model."""
    form = model.profile.input
    content = form.content(480, 640)
    height, width = form.canvas(*content)
    place = next(model.parameters()).device
    images, sizes = torch.zeros(1, 3, height, width, device=place), torch.tensor([content], device=place)
    proposals = None
    if model.takes_boxes:  # as many as are refined
        boxes = torch.full((1, model.top, 4), 0.5, device=place)
        proposals = Proposals(boxes, boxes.new_ones(1, model.top, len(model.category_ids)))
    with FlopCounterMode(display=False) as whole:
        output = model.detector(images, sizes, proposals)
    with FlopCounterMode(display=False) as added:
        model.refined(output, sizes)
    # the counter takes a multiplication and its addition as two
    macs, detector_macs = added.get_total_flops() // 2, whole.get_total_flops() // 2
    return Cost(parameters(model.refiner), parameters(model.detector), macs, detector_macs, (height, width))


def parameters(module: nn.Module) -> int:
    """How many numbers there are in the parameters of a module."""
    return sum(parameter.numel() for parameter in module.parameters())
