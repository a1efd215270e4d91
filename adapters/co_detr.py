"""Co-DETR (arXiv 2211.12860): Deformable DETR and DINO trained with auxiliary heads, of which inference has none."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from refinebox.adapters.deformable_detr import CONSTANTS, DeformableDetr
from refinebox.adapters.dino import AUTHORS, Dino
from refinebox.adapters.parts.deformable_attention import MultiLevelMemory
from refinebox.adapters.parts.deformable_network import FrozenDeformable, frozen_deformable
from refinebox.adapters.parts.deformable_sizes import DeformableSizes
from refinebox.adapters.parts.soft_nms import soft_nms
from torch import Tensor, nn

from refinebox.detection.detector import Detector
from refinebox.detection.output import Detections
from refinebox.detection.profile import Choice, Profile

OVERLAP, LEAST, KEPT = 0.8, 1e-3, 300  # of soft-NMS: the IoU that costs score, the least score, detections


class CoDeformableDetr(DeformableDetr):
    """Two-stage Deformable DETR whose queries keep learned contents; arguments as there."""

    def __init__(self, sizes: DeformableSizes, **options: Any) -> None:
        super().__init__(sizes, **options)
        self.variant = "Co-Deformable-DETR"
        self.query_embed = nn.Embedding(sizes.queries, sizes.width)

    def chosen(self, memory: MultiLevelMemory) -> tuple[Tensor, Tensor, Tensor]:
        _, position, reference = super().chosen(memory)
        content = self.query_embed.weight[: position.shape[1]]
        return content.expand(len(position), -1, -1), position, reference


class CoDino(Dino):
    """DINO with five levels; arguments as there. The checkpoints name the queries' contents otherwise."""

    variant = "Co-DINO"

    def __init__(self, sizes: DeformableSizes, **options: Any) -> None:
        super().__init__(sizes, contents="query_embed", **options)


class FrozenCoDino(FrozenDeformable):
    """Co-DINO as it is published, with soft-NMS over its detections."""

    obstacle = "it ends in soft-NMS, which has no counterpart in a graph"

    def select(self, scores: Tensor, boxes: Tensor, sizes: Tensor) -> list[Detections]:
        """The best pairs, moved inside the image, after soft-NMS."""
        found = super().select(scores, boxes, sizes)
        return [
            self.suppressed(self.finish(detections, size))
            for detections, size in zip(found, sizes.tolist(), strict=True)
        ]

    def suppressed(self, detections: Detections) -> Detections:
        """The best of ``detections``, which are those of one image in its pixels, after soft-NMS."""
        boxes, labels = detections.boxes, detections.labels
        columns = torch.tensor([self.category_ids.index(label) for label in labels.tolist()], device=labels.device)
        index, left = soft_nms(boxes, detections.scores, columns, overlap=OVERLAP, least=LEAST)
        index, left = index[:KEPT], left[:KEPT]
        queries = None if detections.queries is None else detections.queries[index]
        return Detections(boxes[index], left, labels[index], queries)


def build(state: Mapping[str, Tensor], profile: Profile) -> Detector:
    """The frozen detector for a state dict in the authors' layout; errors are those of ``frozen_deformable``."""
    contents = state.get("transformer.query_embed.weight")
    if contents is not None:
        # before soft-NMS the authors take as many pairs as there are queries, mmdetection as many as detections
        pairs = len(contents) if profile.layout == "mmdet2" else KEPT
        return frozen_deformable(
            CoDino, state, replace(profile, choice=Choice(limit=pairs, above=0.0)), AUTHORS, FrozenCoDino
        )
    constants = {**CONSTANTS, "epsilon": 1e-5, "output_epsilon": 1e-5}
    return frozen_deformable(CoDeformableDetr, state, replace(profile, choice=Choice(limit=100)), constants)
