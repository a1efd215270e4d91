"""The frozen detector around a model of transformers."""

import inspect
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch
from refinebox.adapters.parts.stages import places
from refinebox.adapters.parts.taps import Taps
from torch import Tensor, nn

from refinebox.boxes import whwh
from refinebox.detection.detector import Detector
from refinebox.detection.output import DetectorOutput
from refinebox.detection.profile import Profile


class TransformersDetector(Detector):
    """The frozen detector around a model of transformers.

    Feature maps are those of all backbone stages, stride 4 included where the backbone has one. A model that does not
    look at the mask of the padding sees images of different sizes one by one, without padding.

    Raises:
        ValueError: the model has no feature maps, or is one of another task.
    """

    memory_format = torch.contiguous_format  # numbers are the bare model's to the last bit
    probe_side = 256  # some models choose their queries among the cells, and 128 pixels have too few

    def __init__(self, network: Any, profile: Profile) -> None:
        super().__init__(profile)
        self.network = network.train(False)
        images = torch.rand(1, 3, *self.probe_canvas(), generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            output = self._run(images)
            if not (hasattr(output, "logits") and hasattr(output, "pred_boxes")):
                raise ValueError(f"{profile.name} gives no boxes and logits; expected an object detector")
            self._taps = Taps(places(network), self._run, images)
            self._masked = profile.input.fit != "stretch" and self._looks_at_masks(images)
        self._apart = not self._masked and not profile.input.fixed
        if self._apart:
            self.obstacle = "it looks at images of different sizes one by one"
        known = len(profile.category_ids)
        if known and output.logits.shape[-1] == known + 1:  # no-object has a column
            self.profile = replace(profile, classification="softmax", choice=None)
        self.freeze()

    def detect(self, images: Tensor, sizes: Tensor) -> DetectorOutput:
        if self._apart and len(images) > 1 and (sizes != sizes[0]).any():
            return self._one_by_one(images, sizes)
        output, features = self._taps(images, inside(images, sizes) if self._masked else None)
        boxes = enclosing(output.pred_boxes)
        if not self._masked:  # then they are fractions of what the model was given
            canvas = sizes.new_tensor(images.shape[-2:]).expand_as(sizes)
            boxes = boxes * (whwh(canvas) / whwh(sizes))[:, None]
        return DetectorOutput(features, boxes, output.logits)

    def extract(self, images: Tensor, sizes: Tensor) -> tuple[Tensor, ...]:
        if self._apart and len(images) > 1 and (sizes != sizes[0]).any():
            return padded_together([self._taps.maps(image) for image, _ in self._alone(images, sizes)])
        return self._taps.maps(images)

    def _one_by_one(self, images: Tensor, sizes: Tensor) -> DetectorOutput:
        outputs = [self.detect(image, size) for image, size in self._alone(images, sizes)]
        return DetectorOutput(
            padded_together([output.features for output in outputs]),
            torch.cat([output.boxes for output in outputs]),
            torch.cat([output.logits for output in outputs]),
        )

    def _alone(self, images: Tensor, sizes: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """Each image ``[1, 3, H, W]`` with no more padding than it needs by itself, and its size ``[1, 2]``."""
        for image, size in zip(images, sizes, strict=True):
            height, width = self.profile.input.canvas(*size.tolist())
            yield image[None, :, :height, :width], size[None]

    def _run(self, images: Tensor, mask: Tensor | None = None) -> Any:
        masks = {} if mask is None else {"pixel_mask": mask}
        return self.network(pixel_values=images, **masks)

    def _looks_at_masks(self, images: Tensor) -> bool:
        """Whether it changes anything that half of the image is said to be padding; some models only take the mask."""
        if "pixel_mask" not in inspect.signature(self.network.forward).parameters:
            return False
        height, width = images.shape[-2:]
        half = inside(images, torch.tensor([[height, width // 2]]))
        return not torch.equal(self._run(images).logits, self._run(images, half).logits)


def inside(images: Tensor, sizes: Tensor) -> Tensor:
    """``[B, H, W]`` int64, 1 where an image is and 0 in its padding."""
    rows = torch.arange(images.shape[-2], device=images.device) < sizes[:, :1]  # [B, H]
    columns = torch.arange(images.shape[-1], device=images.device) < sizes[:, 1:]  # [B, W]
    return (rows[:, :, None] & columns[:, None, :]).long()


def padded_together(features: Sequence[tuple[Tensor, ...]]) -> tuple[Tensor, ...]:
    """``[B, C_l, H_l, W_l]`` for each level of the maps of single images."""
    return tuple(pad_maps([level[0] for level in maps]) for maps in zip(*features, strict=True))


def pad_maps(maps: Sequence[Tensor]) -> Tensor:
    """``[B, C, H, W]`` maps ``[C, H_i, W_i]`` of one stride, zero-padded right and bottom."""
    height, width = (max(each.shape[side] for each in maps) for side in (1, 2))
    padded = [nn.functional.pad(each, (0, width - each.shape[2], 0, height - each.shape[1])) for each in maps]
    return torch.stack(padded)


def enclosing(boxes: Tensor) -> Tensor:
    """``[B, Q, 4]`` cxcywh around ``[B, Q, 4]`` boxes, or around quadrilaterals ``[B, Q, 10]``.

    A quadrilateral is its centre and the offsets of its corners from there, plus a half (PP-DocLayoutV4).
    """
    if boxes.shape[-1] == 4:
        return boxes
    corners = boxes[..., None, :2] + boxes[..., 2:].reshape(*boxes.shape[:-1], 4, 2) - 0.5  # [B, Q, 4, 2]
    low, high = corners.amin(-2), corners.amax(-2)
    return torch.cat([(low + high) / 2, high - low], dim=-1)
