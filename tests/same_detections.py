"""Whether two codes find the same in an image, with random weights whose scores would all be equal without noise."""

from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree

from refinebox.detection.output import Detections


def noisy(output: Any, scale: float) -> Any:
    """The same tensors with noise added, always the same for one shape."""

    def add(tensor: Any) -> Any:
        if not isinstance(tensor, Tensor) or not tensor.is_floating_point():
            return tensor
        noise = torch.randn(tensor.shape, generator=torch.Generator().manual_seed(tensor.numel()))
        return tensor + scale * noise

    return _pytree.tree_map(add, output)


def found_again(found: Detections, boxes: Tensor, scores: Tensor, labels: Tensor, pixels: float = 0.05) -> float:
    """The share of some detections (xyxy, scores, labels) that are among ``found``.

    It may be a little below 1 where boxes are cut at the border to next to no area: fractions in single precision
    cannot tell how much of one another such slivers cover.
    """
    again = []
    for box, score, label in zip(boxes, scores, labels, strict=True):
        near = (found.boxes - box).abs().amax(1) < pixels
        again.append(bool((near & ((found.scores - score).abs() < 1e-4) & (found.labels == label)).any()))
    return sum(again) / len(again)
