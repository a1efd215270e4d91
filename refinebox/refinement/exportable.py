"""What can be exported: a detector whole, its feature maps, or its refiner alone. Each is a graph with named tensors.

Letters in shape comments: B images, Q queries, N boxes, K categories, C channels, h and w cells.
"""

from abc import abstractmethod
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim
from torch.nn import functional as F

from refinebox.boxes import to_fractions, to_pixels
from refinebox.detection.detector import Detector
from refinebox.refinement.move import clipped
from refinebox.refinement.quality import gather_evidence
from refinebox.refinement.refined_detector import RefinedDetector, looked

GIVEN = 20  # boxes of an image that the refiner is tried with
FREE = Dim.DYNAMIC


class Part(nn.Module):
    """A graph to export.

    Attributes:
        kind: what the file is called in its metadata.
        inputs: names of the tensors that :meth:`forward` takes, maps taken apart.
        free: of each argument, the axes whose length is open, as ``torch.export`` takes them.
    """

    kind: str
    inputs: list[str]
    free: tuple[Any, ...]

    def __init__(self, detector: Detector) -> None:
        super().__init__()
        self.detector = detector
        self.train(False)

    @abstractmethod
    def examples(self, count: int, height: int, width: int) -> tuple[Any, ...]:
        """Arguments of :meth:`forward` for so many images on a canvas of so many pixels; the same every time."""
        raise NotImplementedError


class Whole(Part):
    """Images in, detections and all queries out."""

    kind = "exported detector"
    inputs = ["images", "sizes"]  # noqa: RUF012

    def __init__(self, detector: Detector) -> None:
        super().__init__(detector)
        self.register_buffer("ids", torch.tensor(detector.category_ids))
        self.free = (free_canvas(detector), {0: FREE})

    def examples(self, count: int, height: int, width: int) -> tuple[Tensor, Tensor]:
        return pictures(count, height, width)

    def forward(self, images: Tensor, sizes: Tensor) -> dict[str, Tensor]:
        """Tensors by the names of the file's outputs.

        ``boxes`` ``[B, N, 4]`` xyxy in pixels of ``images``, ``scores`` ``[B, N]`` and ``labels`` ``[B, N]`` are the
        detector's own choice, best first. ``query_boxes`` ``[B, Q, 4]`` (cxcywh, fractions of the unpadded image) and
        ``query_scores`` ``[B, Q, K]`` are what it chose from, ``unrefined_...`` the same before the refiner.

        Args:
            images: ``[B, 3, H, W]`` normalised, zero-padded right and bottom.
            sizes: ``[B, 2]`` (height, width) without the padding, in pixels.
        """
        detector, before = self.detector, None
        if isinstance(detector, RefinedDetector):
            before, after = detector.before_and_after(images, sizes)
        else:
            after = detector(images, sizes)
        scores = detector.scores_of(after)  # [B, Q, K]
        final, columns = detector.profile.final, scores.shape[-1]
        if final.rule == "queries":
            best, column = scores.max(-1)
            best, query = best.sort(dim=-1, descending=True)  # [B, Q]
            column = column.gather(1, query)
        else:
            best, index = scores.flatten(1).topk(min(final.limit, scores.shape[1] * columns))  # [B, N]
            query, column = index // columns, index % columns
        pixels = to_pixels(after.boxes, sizes).gather(1, query[..., None].expand(-1, -1, 4))
        outputs = {"boxes": pixels, "scores": best, "labels": self.get_buffer("ids")[column]}
        outputs |= {"query_boxes": after.boxes, "query_scores": scores}
        if before is not None:
            outputs |= {"unrefined_boxes": before.boxes, "unrefined_scores": detector.scores_of(before)}
        return outputs


class Features(Part):
    """Images in, the maps out that the refiner reads: ``map_0``, ``map_1`` and so on, fine to coarse."""

    kind = "exported features"
    inputs = ["images", "sizes"]  # noqa: RUF012

    def __init__(self, detector: Detector) -> None:
        super().__init__(detector.detector if isinstance(detector, RefinedDetector) else detector)
        self.free = (free_canvas(detector), {0: FREE})

    def examples(self, count: int, height: int, width: int) -> tuple[Tensor, Tensor]:
        return pictures(count, height, width)

    def forward(self, images: Tensor, sizes: Tensor) -> dict[str, Tensor]:
        """``[B, C_l, h_l, w_l]`` for each stride; arguments as of :meth:`Whole.forward`."""
        maps = self.detector.features(images, sizes)
        return dict(zip(map_names(self.detector), maps, strict=True))


class RefinerAlone(Part):
    """Maps and boxes in, better boxes out.

    Raises:
        ValueError: there is no refiner.
    """

    kind = "exported refiner"

    def __init__(self, detector: Detector) -> None:
        if not isinstance(detector, RefinedDetector):
            raise ValueError(
                f"{detector.profile.name} has no refiner to export; name an upgraded checkpoint, as refinebox apply "
                "writes it"
            )
        super().__init__(detector)
        self.model = detector
        self.judges = detector.refiner.quality is not None
        self.looks = detector.refiner.architecture.stem  # at the pixels too
        maps = [*(["images"] if self.looks else []), *map_names(detector)]
        self.inputs = [*maps, "boxes", "sizes", *(["scores"] if self.judges else [])]
        free = [{0: FREE, 2: FREE, 3: FREE} for _ in maps]
        self.free = (free, {0: FREE, 1: FREE}, {0: FREE}, *([{0: FREE, 1: FREE}] if self.judges else []))

    def examples(self, count: int, height: int, width: int) -> tuple[Any, ...]:
        images, sizes = pictures(count, height, width)
        generator = torch.Generator().manual_seed(1)
        sides = 0.02 * 40 ** torch.rand(count, GIVEN, 2, generator=generator)  # small and large, some over the border
        boxes = torch.cat([torch.rand(count, GIVEN, 2, generator=generator), sides], dim=-1)
        scores = torch.rand(count, GIVEN, len(self.model.category_ids), generator=generator)
        maps = [*([images] if self.looks else []), *self.model.detector.features(images, sizes)]
        return (maps, to_pixels(boxes, sizes), sizes, *([scores] if self.judges else []))

    def forward(
        self, maps: list[Tensor], boxes: Tensor, sizes: Tensor, scores: Tensor | None = None
    ) -> dict[str, Tensor]:
        """``refined_boxes`` ``[B, N, 4]`` in the frame of ``boxes``, and where scores are judged ``refined_scores``.

        Args:
            maps: ``[B, C_l, h_l, w_l]`` for each stride, fine to coarse, as :class:`Features` gives them; before
                them the images, where the refiner looks at these.
            boxes: ``[B, N, 4]`` xyxy in pixels of the detector's input.
            sizes: ``[B, 2]`` (height, width) of the input without the padding, in pixels.
            scores: ``[B, N, K]`` the detector's, for a refiner with a quality head alone.
        """
        refiner = self.model.refiner
        stages, seen = looked(refiner, maps, to_fractions(boxes, sizes), sizes)
        final = clipped(stages[-1]) if self.model.clips else stages[-1]
        outputs = {"refined_boxes": to_pixels(final, sizes)}
        if refiner.quality is not None and scores is not None:
            outputs["refined_scores"] = refiner.quality.rescored(scores, gather_evidence(scores, stages, seen, sizes))
        return outputs


PARTS: dict[str, type[Part]] = {"whole": Whole, "features": Features, "refiner": RefinerAlone}


def map_names(detector: Detector) -> list[str]:
    """What the feature maps are called: counted from the finest, as two may have one stride."""
    return [f"map_{level}" for level in range(len(detector.strides))]


def free_canvas(detector: Detector) -> dict[int, Any]:
    """The open axes of a batch of images: the first, and height and width where images come in any size."""
    return {0: FREE} if detector.profile.input.fixed else {0: FREE, 2: FREE, 3: FREE}


def sizes_of(detector: Detector) -> tuple[tuple[int, int], ...]:
    """(height, width) of the batches that a proof tries: the detector's own size, and an odd one below it."""
    form = detector.profile.input
    height, width = form.canvas(*form.content(480, 640))
    if form.fixed:
        return ((height, width),)
    return (height, width), form.canvas(int(width * 0.7) | 1, int(height * 0.8) | 1)


def pictures(count: int, height: int, width: int) -> tuple[Tensor, Tensor]:
    """Smooth normalised pictures ``[count, 3, H, W]``, each smaller than the one before and padded, and their sizes."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.randn(count, 3, 9, 12, generator=generator)
    images = F.interpolate(coarse, size=(height, width), mode="bicubic")
    sizes = torch.tensor([[height - place * height // 8, width - place * width // 10] for place in range(count)])
    for image, (inside, across) in zip(images, sizes.tolist(), strict=True):
        image[:, inside:] = 0
        image[:, :, across:] = 0
    return images, sizes
