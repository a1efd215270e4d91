"""Parts that other refiners and detectors have, for ``ablate.py`` to try; none of them is in the package.

Each is a context in which the refiner is built, trained and evaluated with that part in place of its own.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.ops import box_convert, box_iou

from refinebox.boxes import paired_iou
from refinebox.data.dataset import CocoDataset
from refinebox.detection.detector import Detector
from refinebox.refinement import head, losses, pooling, pyramid, refiner
from refinebox.refinement.head import BoxHead
from refinebox.training import cache, learner
from refinebox.training.cache import Cache, Piece
from refinebox.training.observation import Observation

Part = Callable[[Detector], AbstractContextManager[Any]]


@contextmanager
def replaced(owner: Any, **attributes: Any) -> Iterator[None]:
    """``owner`` with other attributes while the context lasts."""
    own = {name: getattr(owner, name) for name in attributes}
    for name, value in attributes.items():
        setattr(owner, name, value)
    try:
        yield
    finally:
        for name, value in own.items():
            setattr(owner, name, value)


def plain(detector: Detector) -> AbstractContextManager[Any]:
    """The refiner as it is."""
    return ExitStack()


class BiFpn(nn.Module):
    """Weighted fusion down and up again, several times (EfficientDet, arXiv 1911.09070, section 3), for FPN.

    Depthwise separable convolutions, group normalisation as batches are small, SiLU, fast normalised weights.
    """

    def __init__(self, channels: Sequence[int], *, repeats: int, smoothed: bool = True, stem: bool = False) -> None:
        super().__init__()
        width = pyramid.WIDTH
        self.laterals = nn.ModuleList(nn.Sequential(nn.Conv2d(c, width, 1), nn.GroupNorm(32, width)) for c in channels)
        count = len(channels)
        self.down = nn.ModuleList(nn.ModuleList(Fusion(2) for _ in range(count - 1)) for _ in range(repeats))
        self.up = nn.ModuleList(
            nn.ModuleList(Fusion(2 if level == count - 1 else 3) for level in range(1, count)) for _ in range(repeats)
        )

    def where_read(self, features: Sequence[Tensor], stride: int) -> list[Tensor]:
        """Its normalisation needs whole maps."""
        return self(features)

    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        maps = [lateral(feature) for lateral, feature in zip(self.laterals, features, strict=True)]
        for down, up in zip(self.down, self.up, strict=True):
            inner = [maps[-1]]
            for level in reversed(range(len(maps) - 1)):
                above = F.interpolate(inner[0], size=maps[level].shape[-2:], mode="nearest")
                inner.insert(0, down[level]([maps[level], above]))
            fused = [inner[0]]
            for level in range(1, len(maps)):
                below = F.adaptive_max_pool2d(fused[-1], maps[level].shape[-2:])
                between = [inner[level]] if level < len(maps) - 1 else []
                fused.append(up[level - 1]([maps[level], *between, below]))
            maps = fused
        return [each.contiguous() for each in maps]


class Fusion(nn.Module):
    """The weighted mean of maps of one size, convolved."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        width = pyramid.WIDTH
        self.weights = nn.Parameter(torch.ones(inputs))
        self.convolution = nn.Sequential(
            nn.SiLU(),
            nn.Conv2d(width, width, 3, padding=1, groups=width, bias=False),
            nn.Conv2d(width, width, 1, bias=False),
            nn.GroupNorm(32, width),
        )

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        weights = self.weights.relu()
        mean = sum(weight * each for weight, each in zip(weights, maps, strict=True)) / (weights.sum() + 1e-4)
        fused: Tensor = self.convolution(mean)
        return fused


def bifpn(repeats: int) -> Part:
    return lambda _: replaced(refiner, FeaturePyramid=partial(BiFpn, repeats=repeats))


def grouped(groups: int) -> Part:
    """The pyramid's output convolutions in groups of channels."""

    def build(channels: Sequence[int], **options: Any) -> nn.Module:
        built = pyramid.FeaturePyramid(channels, **options)
        for name in [name for name, _ in built.named_children()]:
            if name.startswith("fpn_output"):
                convolution = nn.Conv2d(pyramid.WIDTH, pyramid.WIDTH, 3, padding=1, groups=groups)
                nn.init.kaiming_uniform_(convolution.weight, a=1)
                nn.init.zeros_(convolution.bias)  # type: ignore[arg-type]
                built.add_module(name, convolution)
        return built

    return lambda _: replaced(refiner, FeaturePyramid=build)


def sized(width: int, blocks: int) -> Part:
    """Another number of channels and of residual blocks (EfficientDet's compound scaling: both grow together)."""

    @contextmanager
    def context(_: Detector) -> Iterator[None]:
        with ExitStack() as stack:
            for module in (pyramid, head, refiner):
                stack.enter_context(replaced(module, WIDTH=width))
            stack.enter_context(replaced(head, GROUPS=min(32, width // 2)))
            stack.enter_context(replaced(refiner, BoxHead=partial(Deep, blocks)))
            yield

    return context


class Deep(BoxHead):
    """A head with another number of residual blocks."""

    def __init__(self, blocks: int, **options: Any) -> None:
        super().__init__(**options)
        self.res_block = nn.Sequential(*(head.Bottleneck() for _ in range(blocks)))


def dropped(share: float) -> Part:
    """Leaves out so many of the places that the head reads, others in every step (dropout)."""

    class Dropped(head.Places):
        def forward(self, blocks: Tensor) -> Tensor:
            reduced = self.reduce(blocks)
            centred = (reduced - reduced.mean((2, 3), keepdim=True)).flatten(1)
            summary: Tensor = self.project(F.dropout(centred, share, self.training))
            return summary

    return lambda _: replaced(head, Places=Dropped)


class Merging(BoxHead):
    """A head that reads three levels, of which a convolution makes one; it starts from the box's own."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        width = head.WIDTH
        self.merge = nn.Conv2d(3 * width, width, 1, bias=False)
        with torch.no_grad():
            self.merge.weight.mul_(0.1)
            self.merge.weight[:, width : 2 * width, 0, 0] += torch.eye(width)

    def summary(self, pooled: Tensor) -> Tensor:
        return super().summary(self.merge(pooled))


def three_levels(maps: Sequence[Tensor], strides: Sequence[int], *others: Any) -> Tensor:
    """``[M, 3 C, cells, cells]``: pooled from the level of each box, the next finer and the next coarser one."""
    own = pooling.levels
    pooled = []
    for shift in (-1, 0, 1):
        shifted = lambda *given, by=shift: (own(*given) + by).clamp(0, len(strides) - 1)  # noqa: E731
        with replaced(pooling, levels=shifted):
            pooled.append(pooling.pool(maps, strides, *others))
    return torch.cat(pooled, dim=1)


@contextmanager
def adjacent_levels(_: Detector) -> Iterator[None]:
    """DDQ's flexible receptive field (arXiv 2303.12776, section 3.3): a box reads the levels beside its own too."""
    with replaced(refiner, pool=three_levels, BoxHead=Merging):
        yield


def uniform_overlap(boxes: Tensor, noise: Tensor, least: float = 0.5) -> Tensor:
    """As ``jittered``, with IoUs that are spread evenly between ``least`` and 1, found by bisection."""
    wanted = least + (1 - least) * (noise.sum(-1) * 997).frac().abs()  # [J, N]
    low, high = torch.zeros_like(wanted), torch.ones_like(wanted)
    for _ in range(12):
        middle = (low + high) / 2
        centres = boxes[:, :2] + middle[..., None] * noise[..., :2] * boxes[:, 2:]
        sides = boxes[:, 2:] * (middle[..., None] * noise[..., 2:]).exp()
        copies = torch.cat([centres, sides], dim=-1)  # [J, N, 4]
        near = paired_iou(copies.flatten(0, 1), boxes.repeat(len(noise), 1)).view_as(wanted) > wanted
        low, high = torch.where(near, middle, low), torch.where(near, high, middle)
    return copies.clamp(0, 1)


def even_jitter(_: Detector) -> AbstractContextManager[Any]:
    return replaced(learner, jittered=uniform_overlap)


def every_prediction(rule: str) -> Part:
    """One-to-many positives (Co-DETR, arXiv 2211.12860): predictions near an object as well as its own.

    ``0.5``: with an IoU of at least that; ``atss``: above mean plus deviation of the object's nine nearest (ATSS,
    arXiv 1912.02424, without its levels).
    """

    @contextmanager
    def context(detector: Detector) -> Iterator[None]:
        predicted: dict[tuple[Any, ...], Tensor] = {}
        own = Cache.observe

        def observe(self: Cache, given: Detector, piece: Piece) -> Observation:
            seen = own(self, given, piece)
            extra, wanted, image = [], [], []
            for index, image_id in enumerate(piece.image_ids):
                key = (image_id, self.dataset.variant)
                if key not in predicted:
                    predicted[key] = all_boxes(detector, self.dataset, image_id)
                objects = seen.wanted[seen.image == index]
                rows, nearest = positives(predicted[key], objects, rule)
                taken = (predicted[key][rows, None] == seen.boxes[seen.image == index]).all(-1).any(-1)
                extra.append(predicted[key][rows[~taken]])
                wanted.append(objects[nearest[~taken]])
                image.append(seen.image.new_full((len(extra[-1]),), index))
            boxes, objects, images = (
                torch.cat([first, *others])
                for first, others in ((seen.boxes, extra), (seen.wanted, wanted), (seen.image, image))
            )
            order = images.argsort(stable=True)
            return replace(seen, boxes=boxes[order], wanted=objects[order], image=images[order])

        with replaced(cache.Cache, observe=observe):
            yield

    return context


@torch.no_grad()
def all_boxes(detector: Detector, dataset: CocoDataset, image_id: int) -> Tensor:
    """``[Q, 4]`` what the detector predicts in one training image as it is augmented now."""
    index = next(index for index, entry in enumerate(dataset.images) if entry["id"] == image_id)
    batch = dataset.__getitems__([index]).to(next(detector.parameters()).device)
    return detector(batch.images, batch.sizes, batch.proposals).boxes[0]


def positives(boxes: Tensor, objects: Tensor, rule: str) -> tuple[Tensor, Tensor]:
    """Which of ``boxes`` are near an object, and the nearest object of each (both cxcywh)."""
    overlaps = box_iou(*(box_convert(each, "cxcywh", "xyxy") for each in (boxes, objects)))  # [Q, N]
    if rule == "atss":
        best = overlaps.topk(min(9, len(boxes)), dim=0).values
        overlaps = torch.where(overlaps >= (best.mean(0) + best.std(0)).clamp(min=0.3), overlaps, 0.0)
    best, nearest = overlaps.max(1)
    rows = (best >= (0.5 if rule == "0.5" else 1e-6)).nonzero()[:, 0]
    return rows, nearest[rows]


def weighted(distance: float, giou: float) -> Part:
    """Losses of other weights: by default 1 and 2."""
    own = losses.relative_distance

    @contextmanager
    def context(_: Detector) -> Iterator[None]:
        scaled: Callable[..., Tensor] = lambda boxes, wanted: distance * own(boxes, wanted)  # noqa: E731
        with replaced(losses, relative_distance=scaled, GIOU_WEIGHT=giou):
            yield

    return context
