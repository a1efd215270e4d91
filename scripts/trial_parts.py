"""Parts that other refiners and detectors have, for ``ablate.py`` to try; none of them is in the package.

Each is a context in which the refiner is built, trained and evaluated with that part in place of its own.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import remembered
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.ops import box_convert, box_iou

from refinebox.boxes import paired_iou
from refinebox.data.batches import Batch
from refinebox.detection.detector import Detector
from refinebox.refinement import head, jitter, losses, pooling, pyramid, refiner
from refinebox.refinement.head import BoxHead
from refinebox.training import learner, observation
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


def whole_maps(*, norm: type[nn.Module] | Callable[[], nn.Module]) -> AbstractContextManager[Any]:
    """The pyramid with another normalisation, computed everywhere."""
    stack = ExitStack()
    stack.enter_context(replaced(pyramid, CellNorm=norm))
    everywhere = lambda self, features, stride: self(features)  # noqa: E731
    stack.enter_context(replaced(pyramid.FeaturePyramid, where_read=everywhere))
    return stack


def normed_groups(_: Detector) -> AbstractContextManager[Any]:
    """The pyramid with EfficientDet's kind of normalisation, of groups over whole maps, as batches are small."""
    return whole_maps(norm=partial(nn.GroupNorm, 32, pyramid.WIDTH))


def not_normed(_: Detector) -> AbstractContextManager[Any]:
    """The pyramid without any normalisation."""
    return whole_maps(norm=nn.Identity)


class BiFpn(nn.Module):
    """EfficientDet's pyramid (arXiv 1911.09070, section 3), down and up again, several times; each cell normalised.

    Depthwise separable convolutions, SiLU, fast normalised weights.
    """

    def __init__(self, channels: Sequence[int], *, repeats: int, fused: bool = True, stem: bool = False) -> None:
        super().__init__()
        count = len(channels) + stem
        laterals = [pyramid.NormedLateral(inputs) for inputs in channels]
        self.laterals = nn.ModuleList([*([pyramid.Stem()] if stem else []), *laterals])
        self.down = nn.ModuleList(nn.ModuleList(Weighted(2) for _ in range(count - 1)) for _ in range(repeats))
        self.up = nn.ModuleList(
            nn.ModuleList(Weighted(2 if level == count - 1 else 3) for level in range(1, count)) for _ in range(repeats)
        )

    def where_read(self, features: Sequence[Tensor], stride: int) -> list[Tensor]:
        """All of it: coarse levels ask for fine cells everywhere."""
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


class Separable(nn.Module):
    """The pyramid's fusion with a depthwise and a pointwise convolution for one of both."""

    def __init__(self) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(pyramid.WIDTH, pyramid.WIDTH, 3, groups=pyramid.WIDTH, bias=False)
        self.pointwise = nn.Conv2d(pyramid.WIDTH, pyramid.WIDTH, 1)
        self.norm = pyramid.CellNorm()

    def forward(self, merged: Tensor, padding: int = 1) -> Tensor:
        around = F.pad(F.silu(merged), [padding] * 4)
        normed: Tensor = self.norm(self.pointwise(self.depthwise(around)))
        return normed


class Weighted(nn.Module):
    """The weighted mean of maps of one size, convolved."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.weights = nn.Parameter(torch.ones(inputs))
        self.fusion = Separable()

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        weights = self.weights.relu()
        mean = sum(weight * each for weight, each in zip(weights, maps, strict=True)) / (weights.sum() + 1e-4)
        fused: Tensor = self.fusion(mean)
        return fused


def bifpn(repeats: int) -> Part:
    return lambda _: replaced(refiner, FeaturePyramid=partial(BiFpn, repeats=repeats))


def separable(_: Detector) -> AbstractContextManager[Any]:
    """The fused pyramid with separable convolutions."""
    return replaced(pyramid, Fusion=Separable)


class Unconvolved(nn.Module):
    """A fusion without a convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = pyramid.CellNorm()

    def forward(self, merged: Tensor, padding: int = 1) -> Tensor:
        normed: Tensor = self.norm(F.silu(merged))
        return normed if padding else normed[..., 1:-1, 1:-1]


def laterals_alone(_: Detector) -> AbstractContextManager[Any]:
    """The fused pyramid without 3x3 convolutions, in which no cell looks at its neighbours."""
    return replaced(pyramid, Fusion=Unconvolved)


def moved_by_edges(boxes: Tensor, moves: Tensor, how: str) -> Tensor:
    """Boxes ``[M, 4]`` whose left, upper, right and lower edges moved by shares of the sides."""
    sides = boxes[:, 2:]
    low, high = (moves.clamp(-0.9, 0.9) * sides.repeat(1, 2)).split(2, dim=1)
    return torch.cat([boxes[:, :2] + (low + high) / 2, (sides + high - low).clamp(min=1e-4)], dim=1)


class Distributed(BoxHead):
    """A head whose moves are means of distributions over steps that grow outwards (D-FINE, arXiv 2410.13842)."""

    BINS, REACH = 12, 0.5  # to each side of no move, in sides of the box

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.bboxes_deltas = nn.Linear(head.WIDTH, 4 * (2 * self.BINS + 1))
        nn.init.zeros_(self.bboxes_deltas.weight)
        nn.init.zeros_(self.bboxes_deltas.bias)
        outwards = self.REACH * (torch.linspace(0, 1, self.BINS + 1) ** 2)[1:]
        self.register_buffer("values", torch.cat([-outwards.flip(0), torch.zeros(1), outwards]), persistent=False)

    def moves(self, summary: Tensor) -> Tensor:
        shares = super().moves(summary).unflatten(1, (4, -1)).softmax(-1)
        return shares @ self.values


def by_edges(box_head: type[BoxHead]) -> Part:
    """Moves of the four edges, from a head of this kind."""
    return lambda _: replaced(refiner, moved=moved_by_edges, BoxHead=box_head)


def settled(_: Detector) -> AbstractContextManager[Any]:
    """When it is trained, the mean of the boxes of the last two moves instead of the last."""
    own = refiner.Refiner.refine_and_look

    def look(self: refiner.Refiner, *given: Any) -> tuple[list[Tensor], Tensor]:
        steps, seen = own(self, *given)
        return steps if self.training else [*steps[:-1], (steps[-2] + steps[-1]) / 2], seen

    return replaced(refiner.Refiner, refine_and_look=look)


def random_start(_: Detector) -> AbstractContextManager[Any]:
    """First moves that are not zero."""

    def build(*, still: bool, **options: Any) -> BoxHead:
        return BoxHead(still=False, **options)

    return replaced(refiner, BoxHead=build)


def jittered_by(amount: float) -> Part:
    """Moved copies that are off by another share of the sides; by default 0.15."""
    return lambda _: replaced(learner, jittered=partial(jitter.jittered, amount=amount))


def sized(width: int) -> Part:
    """Another number of channels; EfficientDet's compound scaling adds residual blocks, which are a setting."""

    @contextmanager
    def context(_: Detector) -> Iterator[None]:
        with ExitStack() as stack:
            for module in (pyramid, head, refiner):
                stack.enter_context(replaced(module, WIDTH=width))
            stack.enter_context(replaced(head, GROUPS=min(32, width // 2)))
            yield

    return context


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

    def observe(detector: Detector, batch: Batch, *, pixels: bool = False) -> Observation:
        seen = observation.observe(detector, batch, pixels=pixels)
        predictions = detector(batch.images, batch.sizes, batch.proposals).boxes
        boxes, wanted, images = [], [], []
        for index, predicted in enumerate(predictions):
            own, objects = seen.boxes[seen.image == index], seen.wanted[seen.image == index]
            rows, nearest = positives(predicted, objects, rule)
            new = ~(predicted[rows, None] == own).all(-1).any(-1)
            boxes += [own, predicted[rows[new]]]
            wanted += [objects, objects[nearest[new]]]
            images.append(seen.image.new_full((len(own) + int(new.sum()),), index))
        return replace(seen, boxes=torch.cat(boxes), wanted=torch.cat(wanted), image=torch.cat(images))

    return lambda _: replaced(remembered, observe=observe)


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
