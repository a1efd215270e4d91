"""The frozen detector: the class that every adapter derives from.

Letters in shape comments: B images, Q queries, K categories, C channels, H and W pixels or cells.
"""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import torch
from PIL import Image
from torch import Tensor, nn
from torchvision.ops import clip_boxes_to_image

from refinebox.boxes import to_pixels
from refinebox.data.categories import COCO_NAMES
from refinebox.data.images import pad, preprocess, read_image
from refinebox.detection.output import Detections, DetectorOutput
from refinebox.detection.profile import Precision, Profile
from refinebox.files import checkpoint


class Detector(nn.Module):
    """A detector that cannot be trained: always in eval mode, without gradients.

    An adapter implements :meth:`detect` and calls :meth:`freeze` when its network is in place.

    Attributes:
        profile: name, input size and further facts.
        strides, channels: of the feature maps, measured by one forward pass.
        category_ids: category id of each score column.
        category_names: category id to name.
        precision: of matrix products and convolutions; ``bfloat16`` is faster on GPUs, and boxes stay float32.
    """

    def __init__(self, profile: Profile) -> None:
        super().__init__()
        self.profile = profile
        self.strides: tuple[int, ...] = ()
        self.channels: tuple[int, ...] = ()
        self.category_ids = profile.category_ids
        self.category_names = dict(profile.category_names)
        self.precision: Precision = "float32"

    @abstractmethod
    def detect(self, images: Tensor, sizes: Tensor) -> DetectorOutput:
        """The network's output; see :meth:`forward`."""
        raise NotImplementedError

    @torch.no_grad()
    def forward(self, images: Tensor, sizes: Tensor) -> DetectorOutput:
        """Features, boxes and logits for a batch.

        Args:
            images: ``[B, 3, H, W]`` normalised, zero-padded right and bottom.
            sizes: ``[B, 2]`` int (height, width) without padding, in pixels.
        """
        with self._autocast(images.device):
            output = self.detect(images.contiguous(memory_format=torch.channels_last), sizes)
        return DetectorOutput(tuple(map(_widened, output.features)), _widened(output.boxes), _widened(output.logits))

    @torch.no_grad()
    def features(self, images: Tensor, sizes: Tensor) -> tuple[Tensor, ...]:
        """The feature maps of :meth:`forward` alone."""
        with self._autocast(images.device):
            features = self.extract(images.contiguous(memory_format=torch.channels_last), sizes)
        return tuple(map(_widened, features))

    def extract(self, images: Tensor, sizes: Tensor) -> tuple[Tensor, ...]:
        """The features that :meth:`detect` returns; an adapter that can do so runs its backbone alone."""
        return self.detect(images, sizes).features

    def _autocast(self, device: torch.device) -> AbstractContextManager[Any]:
        return torch.autocast(device.type, torch.bfloat16) if self.precision == "bfloat16" else nullcontext()

    def train(self, mode: bool = True) -> Self:
        """Stays in eval mode whatever is asked."""
        return super().train(False)

    def freeze(self) -> None:
        """Switches gradients off and measures strides, channels and the number of categories."""
        self.requires_grad_(False)
        self.train(False)
        self.to(memory_format=torch.channels_last)  # makes convolutions several times faster on CPUs
        side = 128
        output = self(torch.zeros(1, 3, side, side), torch.tensor([[side, side]]))
        self.strides = tuple(side // feature.shape[-1] for feature in output.features)
        self.channels = tuple(feature.shape[1] for feature in output.features)
        columns = self.scores(output.logits).shape[-1]
        if not self.category_ids:
            self.category_ids = tuple(range(columns))
            if columns == len(COCO_NAMES) and self.profile.layout == "detrex" and not self.category_names:
                self.category_ids = tuple(COCO_NAMES)  # detectron2 counts the categories that exist
            if self.category_ids[-1] == max(COCO_NAMES) and not self.category_names:
                self.category_names = dict(COCO_NAMES)
        if len(self.category_ids) != columns:
            raise ValueError(
                f"{self.profile.name}: {len(self.category_ids)} category ids for {columns} score columns; "
                "the checkpoint's metadata is wrong"
            )

    def resize(self, short_side: int | None, long_side: int | None) -> None:
        """Changes the input size that images are brought to; None leaves a side as it is."""
        self.profile = replace(
            self.profile,
            short_side=short_side or self.profile.short_side,
            long_side=long_side or self.profile.long_side,
        )

    def name_categories(self, categories: Sequence[Mapping[str, Any]]) -> None:
        """Takes over ``id`` and ``name`` of each score column if the detector has no names; none leaves it as it is."""
        if categories and not self.category_names:
            self.category_ids = tuple(category["id"] for category in categories)
            self.category_names = {category["id"]: category["name"] for category in categories}

    def preprocess(self, image: Image.Image) -> Tensor:
        """``[3, H, W]`` the image in RGB, resized and normalised as the detector wants it."""
        return preprocess(image, self.profile.short_side, self.profile.long_side, self.profile.layout)

    def tensors(self) -> dict[str, Tensor]:
        """The weights, named as the adapter's ``build`` reads them."""
        return {name.removeprefix("network."): tensor for name, tensor in self.state_dict().items()}

    def weights_sha256(self) -> str:
        """Hexadecimal SHA-256 of all tensors, by which a refiner knows its detector whatever file it came from."""
        return checkpoint.tensors_sha256(self.tensors())

    def scores(self, logits: Tensor) -> Tensor:
        """``[B, Q, K]`` probabilities of the categories; no-object is never among them."""
        if self.profile.classification == "softmax":
            return logits.softmax(-1)[..., :-1]
        return logits.sigmoid()

    def postprocess(self, scores: Tensor, boxes: Tensor, sizes: Tensor) -> list[Detections]:
        """The detections of each image: :meth:`select`, then :meth:`finish`; arguments as for :meth:`select`."""
        found = self.select(scores, boxes, sizes)
        return [self.finish(detections, size) for detections, size in zip(found, sizes.tolist(), strict=True)]

    def finish(self, detections: Detections, size: tuple[int, int]) -> Detections:
        """What the code returns that the detector comes from, for an image of ``size`` (height, width).

        detrex cuts boxes at the borders of the image and drops those with nothing left; others return what they have.
        """
        if self.profile.layout != "detrex":
            return detections
        boxes = clip_boxes_to_image(detections.boxes, size)
        kept = ((boxes[:, 2:] - boxes[:, :2]) > 0).all(-1)
        return Detections(boxes[kept], detections.scores[kept], detections.labels[kept])

    def select(self, scores: Tensor, boxes: Tensor, sizes: Tensor) -> list[Detections]:
        """The detector's own choice, which depends on the scores alone: other boxes, the same rows.

        Sigmoid detectors return their best (query, category) pairs, best first; softmax detectors every query with its
        best category.

        Args:
            scores: ``[B, Q, K]``.
            boxes: ``[B, Q, 4]`` cxcywh, fractions of the unpadded image.
            sizes: ``[B, 2]`` (height, width) of the original images, in pixels.
        """
        columns = scores.shape[-1]
        if self.profile.classification == "softmax":
            chosen, column = scores.max(-1)  # [B, Q]
            query = torch.arange(scores.shape[1], device=scores.device).expand_as(column)
        else:
            flat = scores.flatten(1)  # [B, Q * K]
            chosen, index = flat.topk(min(self.profile.detections, flat.shape[1]))
            query, column = index // columns, index % columns  # [B, N]
        pixels = to_pixels(boxes.gather(1, query[..., None].expand(-1, -1, 4)), sizes)  # [B, N, 4]
        labels = torch.tensor(self.category_ids, device=scores.device)[column]  # [B, N]
        return [Detections(*fields) for fields in zip(pixels, chosen, labels, strict=True)]

    def predict(self, images: Sequence[str | Path | Image.Image]) -> list[Detections]:
        """Detections in image files or PIL images, one image at a time so that padding plays no part.

        Raises:
            ValueError: a file is not a readable image; the message names it.
        """
        device = next(self.parameters()).device
        detections = []
        for item in images:
            image = item.convert("RGB") if isinstance(item, Image.Image) else read_image(Path(item))
            batch, sizes = pad([self.preprocess(image)])
            output = self(batch.to(device), sizes.to(device))
            original = torch.tensor([[image.height, image.width]], device=device)
            detections += self.postprocess(self.scores(output.logits), output.boxes, original)
        return detections


def _widened(tensor: Tensor) -> Tensor:
    return tensor.float() if tensor.dtype == torch.bfloat16 else tensor
