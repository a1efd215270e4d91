"""The refiner: FPN, RoIAlign, residual blocks and an MLP that moves each box, three times with one set of weights.

Equal to the published network (RefineBox, arXiv 2307.11828, section 3); module names are those of the published files.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.ops import roi_align

from refinebox.boxes import inverse_sigmoid, to_pixels
from refinebox.detection.detector import Detections, Detector, DetectorOutput, load_tensors
from refinebox.files import checkpoint

WIDTH = 64  # channels of the pyramid and of everything after it
GROUPS = 32  # of the group normalisation
ROI_SIDE = 7


class Refiner(nn.Module):
    """Moves boxes to where the features say they belong.

    Args:
        channels: of the detector's feature maps, fine to coarse.
        strides: of the same maps, in pixels.
        steps: how often the boxes are moved.
    """

    def __init__(self, channels: Sequence[int], strides: Sequence[int] = (4, 8, 16, 32), steps: int = 3) -> None:
        super().__init__()
        if len(channels) != len(strides):
            raise ValueError(
                f"{len(channels)} channel counts for {len(strides)} strides; expected one of each for every feature map"
            )
        self.channels, self.strides, self.steps = tuple(channels), tuple(strides), steps
        self.channel_mapper = FeaturePyramid(channels)
        self.bboxes_refiner = BoxHead()

    def forward(self, features: Sequence[Tensor], boxes: Tensor, sizes: Tensor) -> list[Tensor]:
        """The boxes after each step, a list of ``[B, N, 4]`` in the format and frame of ``boxes``.

        Args:
            features: the detector's maps, ``[B, C_l, H_l, W_l]`` each.
            boxes: ``[B, N, 4]`` cxcywh, fractions of the unpadded image.
            sizes: ``[B, 2]`` (height, width) of the unpadded images as the detector saw them, in pixels.
        """
        image = torch.arange(len(boxes), device=boxes.device).repeat_interleave(boxes.shape[1])  # [B * N]
        return [step.view_as(boxes) for step in self.refine(features, boxes.flatten(0, 1), image, sizes)]

    def refine(self, features: Sequence[Tensor], boxes: Tensor, image: Tensor, sizes: Tensor) -> list[Tensor]:
        """As :meth:`forward` for boxes ``[M, 4]`` from any images, box m from image ``image[m]``.

        Gradients flow from step to step through the boxes' logits, not through RoIAlign.
        """
        pyramid = self.channel_mapper(features)
        steps = []
        for _ in range(self.steps):
            pixels = to_pixels(boxes[:, None], sizes[image])[:, 0]  # [M, 4]
            pooled = self.pool(pyramid, pixels, image)
            boxes = (inverse_sigmoid(boxes) + self.bboxes_refiner(pooled)).sigmoid().clamp(0, 1)
            steps.append(boxes)
        return steps

    def pool(self, pyramid: Sequence[Tensor], pixels: Tensor, image: Tensor) -> Tensor:
        """``[M, 64, 7, 7]`` features inside boxes ``[M, 4]`` (xyxy, pixels, not clipped), each from its own level."""
        rois = torch.cat([image[:, None].to(pixels), pixels], dim=1)  # [M, 5]
        level_of = levels(pixels, self.strides)
        pooled = pixels.new_zeros(len(pixels), WIDTH, ROI_SIDE, ROI_SIDE)
        for level, (feature, stride) in enumerate(zip(pyramid, self.strides, strict=True)):
            # a level without boxes takes part too, so that its weights get a gradient of zero rather than none
            rows = (level_of == level).nonzero()[:, 0]
            pooled[rows] = roi_align(feature, rois[rows], ROI_SIDE, 1 / stride, sampling_ratio=2, aligned=True)
        return pooled


def levels(pixels: Tensor, strides: Sequence[int]) -> Tensor:
    """``[M]`` pyramid level of each box (xyxy, pixels): 224 pixels of side belong to stride 16 (FPN, equation 1)."""
    sides = ((pixels[:, 2] - pixels[:, 0]) * (pixels[:, 3] - pixels[:, 1])).sqrt()
    # the epsilon stands inside the logarithm here, unlike in torchvision
    level = (4 + torch.log2(sides / 224 + 1e-8)).floor()
    finest = round(math.log2(strides[0]))
    return level.clamp(finest, finest + len(strides) - 1).long() - finest


class FeaturePyramid(nn.Module):
    """Top-down sum fusion to 64 channels, without norm or activation; sizes may be odd."""

    def __init__(self, channels: Sequence[int]) -> None:
        super().__init__()
        self.levels = range(2, 2 + len(channels))  # names count from the published stride 4, res2
        for level, inputs in zip(self.levels, channels, strict=True):
            lateral, output = nn.Conv2d(inputs, WIDTH, 1), nn.Conv2d(WIDTH, WIDTH, 3, padding=1)
            for convolution in (lateral, output):
                nn.init.kaiming_uniform_(convolution.weight, a=1)
                nn.init.zeros_(convolution.bias)  # type: ignore[arg-type]
            self.add_module(f"fpn_lateral{level}", lateral)
            self.add_module(f"fpn_output{level}", output)

    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        """``[B, 64, H_l, W_l]`` for each feature map, fine to coarse."""
        pyramid: list[Tensor] = []
        above = None
        for level, feature in reversed(list(zip(self.levels, features, strict=True))):
            merged = self.get_submodule(f"fpn_lateral{level}")(feature)
            if above is not None:
                merged = merged + F.interpolate(above, size=merged.shape[-2:], mode="nearest")
            above = merged
            # laid out once as RoIAlign reads it, which would otherwise do so at every step
            pyramid.insert(0, self.get_submodule(f"fpn_output{level}")(merged).contiguous())
        return pyramid


class BoxHead(nn.Module):
    """Residual blocks, average pooling, MLP: ``[M, 64, 7, 7]`` to moves ``[M, 4]`` of the logits of cx, cy, w, h."""

    def __init__(self) -> None:
        super().__init__()
        self.res_block = nn.Sequential(*(Bottleneck() for _ in range(3)))
        self.reg_module = nn.Sequential(
            nn.Linear(WIDTH, WIDTH, bias=False),
            nn.LayerNorm(WIDTH),
            nn.ReLU(),
            nn.Linear(WIDTH, WIDTH, bias=False),
            nn.LayerNorm(WIDTH),
            nn.ReLU(),
        )
        self.bboxes_deltas = nn.Linear(WIDTH, 4)

    def forward(self, pooled: Tensor) -> Tensor:
        moves: Tensor = self.bboxes_deltas(self.reg_module(self.res_block(pooled).mean((2, 3))))
        return moves


class Bottleneck(nn.Module):
    """Residual block of 1x1, 3x3 and 1x1 convolutions, all 64 channels wide, each with group normalisation."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = NormedConv(1)
        self.conv2 = NormedConv(3)
        self.conv3 = NormedConv(1)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.conv3(self.conv2(self.conv1(x).relu()).relu())
        return (out + x).relu()


class NormedConv(nn.Conv2d):
    """Convolution without bias, then group normalisation; they share a name in the published files."""

    def __init__(self, kernel: int) -> None:
        super().__init__(WIDTH, WIDTH, kernel, padding=kernel // 2, bias=False)
        nn.init.kaiming_normal_(self.weight, mode="fan_out", nonlinearity="relu")
        self.norm = nn.GroupNorm(GROUPS, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        normed: Tensor = self.norm(super().forward(x))
        return normed


class RefinedDetector(Detector):
    """A frozen detector followed by a refiner; itself a detector.

    Only the queries with the best scores are refined (100 by default, as published); scores never change.

    Raises:
        ValueError: the refiner was built for other feature maps, or the detector is refined already.
    """

    def __init__(self, detector: Detector, refiner: Refiner, top: int = 100) -> None:
        super().__init__(detector.profile)
        if isinstance(detector, RefinedDetector):
            raise ValueError(f"{detector.profile.name} is upgraded already; start from the detector it was made from")
        check_fit(detector, refiner)
        self.detector, self.refiner, self.top = detector, refiner, top
        self.strides, self.channels = detector.strides, detector.channels
        self.category_ids, self.category_names = detector.category_ids, detector.category_names
        self.train(False)

    def detect(self, images: Tensor, sizes: Tensor) -> DetectorOutput:
        return self.before_and_after(images, sizes)[1]

    def scores(self, logits: Tensor) -> Tensor:
        return self.detector.scores(logits)

    def select(self, scores: Tensor, boxes: Tensor, sizes: Tensor) -> list[Detections]:
        return self.detector.select(scores, boxes, sizes)

    def finish(self, detections: Detections, size: tuple[int, int]) -> Detections:
        return self.detector.finish(detections, size)

    def preprocess(self, image: Image.Image) -> Tensor:
        return self.detector.preprocess(image)

    def resize(self, short_side: int | None, long_side: int | None) -> None:
        self.detector.resize(short_side, long_side)
        self.profile = self.detector.profile

    @torch.no_grad()
    def before_and_after(self, images: Tensor, sizes: Tensor) -> tuple[DetectorOutput, DetectorOutput]:
        """The frozen detector's output and the refined one, from one forward pass; queries keep their places."""
        before = self.detector(images, sizes)
        return before, self.refined(before, sizes)

    @torch.no_grad()
    def refined(self, output: DetectorOutput, sizes: Tensor, refiner: Refiner | None = None) -> DetectorOutput:
        """``output`` with the boxes of the best queries refined, by its own refiner or another."""
        best = self.scores(output.logits).amax(-1)  # [B, Q]
        top = best.topk(min(self.top, best.shape[1])).indices[..., None].expand(-1, -1, 4)  # [B, N, 4]
        refined = (refiner or self.refiner)(output.features, output.boxes.gather(1, top), sizes)[-1]
        return DetectorOutput(output.features, output.boxes.scatter(1, top, refined), output.logits)


def check_fit(detector: Detector, refiner: Refiner) -> None:
    """Raises ValueError where the refiner reads other feature maps than the detector has."""
    if detector.channels != refiner.channels or detector.strides != refiner.strides:
        raise ValueError(
            f"the refiner reads {_maps(refiner.channels, refiner.strides)}, but {detector.profile.name} gives "
            f"{_maps(detector.channels, detector.strides)}; use a refiner that was trained on this detector"
        )


def _maps(channels: Sequence[int], strides: Sequence[int]) -> str:
    return f"{'/'.join(map(str, channels))} channels at strides {'/'.join(map(str, strides))}"


def load_refiner(path: str | Path) -> Refiner:
    """A refiner from a published ``model_final.pth`` or from a ``.safetensors`` file that ``refinebox train`` wrote.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged, unsafe, or holds something else.
    """
    return load_refiner_and_history(Path(path))[0]


def load_refiner_and_history(path: Path) -> tuple[Refiner, dict[str, Any]]:
    """The refiner and what its file says about its training; empty for a published file."""
    state, metadata = checkpoint.read(path)
    if metadata and metadata.get("kind") != "refiner":
        raise ValueError(
            f"{path} holds a {metadata.get('kind')}, expected a refiner; refinebox train writes best.safetensors"
        )
    return build_refiner(state, metadata, str(path)), metadata


def build_refiner(state: dict[str, Tensor], metadata: dict[str, Any], where: str) -> Refiner:
    """The refiner with the tensors of ``state``; strides and steps are as published where ``metadata`` is silent."""
    laterals = sorted(key for key in state if key.startswith("channel_mapper.fpn_lateral") and key.endswith("weight"))
    if not laterals:
        raise ValueError(
            f"{where} is no refiner: it has no channel_mapper.fpn_lateral tensors; "
            f"its first are {', '.join(list(state)[:3])}"
        )
    channels = [state[key].shape[1] for key in laterals]
    refiner = Refiner(
        channels, metadata.get("strides", [4 * 2**level for level in range(len(channels))]), metadata.get("steps", 3)
    )
    load_tensors(refiner, state, where)
    return refiner
