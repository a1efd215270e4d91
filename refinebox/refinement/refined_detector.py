"""A frozen detector and its refiner as one detector."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from refinebox.data.annotations import CocoData
from refinebox.data.input_format import InputFormat
from refinebox.data.proposals import Found, Proposals
from refinebox.detection.detector import Detector
from refinebox.detection.output import Detections, DetectorOutput
from refinebox.refinement.move import clipped
from refinebox.refinement.quality import OTHERS, gather_evidence
from refinebox.refinement.refiner import Refiner


class RefinedDetector(Detector):
    """A frozen detector followed by a refiner; itself a detector.

    Only the queries with the best scores are refined (100 by default, as published). Scores change only where the
    refiner judges the quality of its boxes. Boxes that were moved relative to their own sides are cut at the borders of
    the image in the end, with all others.

    Attributes:
        history: what is known of the refiner's training, as its file keeps it: its ``data``, and the ``choice`` that
            held-out images made.

    Raises:
        ValueError: the refiner was built for other feature maps, or the detector has none or is refined already.
    """

    def __init__(self, detector: Detector, refiner: Refiner, top: int = 100) -> None:
        super().__init__(detector.profile)
        if isinstance(detector, RefinedDetector):
            raise ValueError(f"{detector.profile.name} is upgraded already; start from the detector it was made from")
        check_fit(detector, refiner)
        self.detector, self.refiner, self.top = detector, refiner, top
        self.strides, self.channels, self.candidates = detector.strides, detector.channels, detector.candidates
        self.category_ids, self.category_names = detector.category_ids, detector.category_names
        self.takes_boxes, self.takes_text = detector.takes_boxes, detector.takes_text
        self.history: Mapping[str, Any] = {}
        self.train(False)

    @property
    def clips(self) -> bool:
        """Whether boxes are cut at the borders of the image in the end."""
        return self.refiner.architecture.moves == "relative"

    def detect(self, images: Tensor, sizes: Tensor) -> DetectorOutput:
        return self.before_and_after(images, sizes)[1]

    def detect_given(self, images: Tensor, sizes: Tensor, proposals: Proposals) -> DetectorOutput:
        return self.before_and_after(images, sizes, proposals)[1]

    def proposals(self, data: CocoData, columns: Mapping[int, int]) -> Mapping[int, Found] | None:
        return self.detector.proposals(data, columns)

    def proposals_in(self, paths: Sequence[Path]) -> Sequence[Found | None]:
        return self.detector.proposals_in(paths)

    def take(self, results: Path) -> None:
        self.detector.take(results)

    def ask(self, phrases: Sequence[str], ids: Sequence[int] | None = None) -> None:
        self.detector.ask(phrases, ids)
        self.profile = self.detector.profile
        self.category_ids, self.category_names = self.detector.category_ids, self.detector.category_names

    def name_categories(self, categories: Sequence[Mapping[str, Any]]) -> None:
        self.detector.name_categories(categories)
        self.profile = self.detector.profile
        self.category_ids, self.category_names = self.detector.category_ids, self.detector.category_names

    def scores(self, logits: Tensor) -> Tensor:
        return self.detector.scores(logits)

    def select(self, scores: Tensor, boxes: Tensor, sizes: Tensor) -> list[Detections]:
        return self.detector.select(scores, boxes, sizes)

    def finish(self, detections: Detections, size: tuple[int, int]) -> Detections:
        return self.detector.finish(detections, size)

    def preprocess(self, image: Image.Image) -> Tensor:
        return self.detector.preprocess(image)

    def reformat(self, form: InputFormat) -> None:
        self.detector.reformat(form)
        self.profile = self.detector.profile

    @torch.no_grad()
    def before_and_after(
        self, images: Tensor, sizes: Tensor, proposals: Proposals | None = None
    ) -> tuple[DetectorOutput, DetectorOutput]:
        """The frozen detector's output and the refined one, from one forward pass; queries keep their places."""
        before = self.detector(images, sizes, proposals)
        return before, self.refined(before, sizes)

    @torch.no_grad()
    def refined(self, output: DetectorOutput, sizes: Tensor, refiner: Refiner | None = None) -> DetectorOutput:
        """``output`` with the boxes of the best queries refined, by its own refiner or another."""
        refiner = refiner or self.refiner
        scores = self.scores(output.logits)  # [B, Q, K]
        top = scores.amax(-1).topk(min(self.top, scores.shape[1])).indices  # [B, N]
        places = top[..., None].expand(-1, -1, 4)  # [B, N, 4]
        stages, seen = looked(refiner, refiner.reads(output), output.boxes.gather(1, places), sizes)
        boxes = output.boxes.scatter(1, places, stages[-1])
        if self.clips:
            boxes = clipped(boxes)
        if refiner.quality is None:
            return replace(output, boxes=boxes)
        columns = top[..., None].expand(-1, -1, scores.shape[-1])  # [B, N, K]
        chosen = scores.gather(1, columns)
        rescored = refiner.quality.rescored(chosen, gather_evidence(chosen, stages, seen, sizes))
        return replace(output, boxes=boxes, rescored=(OTHERS * scores).scatter(1, columns, rescored))


def looked(refiner: Refiner, features: Sequence[Tensor], boxes: Tensor, sizes: Tensor) -> tuple[list[Tensor], Tensor]:
    """The boxes ``[B, N, 4]`` before and after each step, and ``[B, N, 64]`` what the head saw of them last."""
    count, each = boxes.shape[:2]
    # repeat_interleave would be this, but for exported graphs in which the number of boxes is open
    image = torch.arange(count, device=boxes.device)[:, None].expand(count, each).flatten()  # [B * N]
    steps, seen = refiner.refine_and_look(features, boxes.flatten(0, 1), image, sizes)
    return [boxes, *(step.view_as(boxes) for step in steps)], seen.view(*boxes.shape[:2], seen.shape[-1])


def check_fit(detector: Detector, refiner: Refiner) -> None:
    """Raises ValueError where the refiner reads other feature maps than the detector has."""
    if not detector.channels:
        raise ValueError(
            f"{detector.profile.name} gives no feature maps, as exported files do not; name the checkpoint that it was "
            "exported from"
        )
    if detector.channels != refiner.channels or detector.strides != refiner.strides:
        raise ValueError(
            f"the refiner reads {_maps(refiner.channels, refiner.strides)}, but {detector.profile.name} gives "
            f"{_maps(detector.channels, detector.strides)}; use a refiner that was trained on this detector"
        )


def _maps(channels: Sequence[int], strides: Sequence[int]) -> str:
    return f"{'/'.join(map(str, channels))} channels at strides {'/'.join(map(str, strides))}"
