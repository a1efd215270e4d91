"""DDQ-DETR (arXiv 2303.12776): DINO's decoder on dense queries, of which near-duplicates are suppressed at every layer.

This is the released behaviour. Its code reads which queries are distinct from the first row of the attention mask, and
that row is open everywhere as soon as the first query, the encoder's best, survives. The set that the next suppression
starts from, and that detections are taken from, is then all queries again.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from refinebox.adapters.dino import Dino
from refinebox.adapters.parts.deformable_attention import MultiLevelMemory
from refinebox.adapters.parts.deformable_network import FrozenDeformable, frozen_deformable, moved, on_levels
from refinebox.adapters.parts.deformable_sizes import DeformableSizes
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.ops import box_convert, nms

from refinebox.detection.detector import Detector
from refinebox.detection.output import DetectorOutput
from refinebox.detection.profile import Choice, Profile

CONSTANTS = {"temperature": 20.0, "offset": 0.0, "epsilon": 1e-3, "output_epsilon": 1e-5, "queries": 900}
OVERLAP = 0.8  # IoU from which two queries count as one (section 4.3)


class Ddq(Dino):
    """The network (section 4).

    Args:
        sizes: what the tensors tell.
        options: of :class:`refinebox.adapters.parts.deformable_network.DeformableNetwork`.
    """

    def __init__(self, sizes: DeformableSizes, **options: Any) -> None:
        super().__init__(sizes, **options)
        self.query_map = nn.Linear(sizes.width, sizes.width)

    def predict(self, images: Tensor, sizes: Tensor) -> DetectorOutput:
        """As of a detector's ``forward``; queries that were suppressed have logits of minus infinity."""
        features, memory = self.encode(images, sizes)
        content, boxes = self.queries(memory)
        hidden, reference, kept = self.decode_distinct(memory, content, boxes)
        logits, boxes = self.heads(self.layers - 1, hidden, reference)
        return DetectorOutput(features, boxes, logits.masked_fill(~kept[..., None], -torch.inf))

    def queries(self, memory: MultiLevelMemory) -> tuple[Tensor, Tensor]:
        """Contents ``[B, Q, C]``, from the tokens themselves, and boxes ``[B, Q, 4]`` of the best distinct tokens."""
        logits, boxes = self.proposed(memory)
        scores = logits.amax(-1).sigmoid()  # [B, L]
        mapped = self.query_map(memory.tokens)
        contents, starts = [], []
        for image in range(len(boxes)):
            index = distinct(boxes[image].sigmoid(), scores[image])[: self.count]
            missing = self.count - len(index)
            # where too few are distinct, the rest starts from nothing: a box of half the image in its middle
            contents.append(F.pad(mapped[image, index], (0, 0, 0, missing)))
            starts.append(F.pad(boxes[image, index], (0, 0, 0, missing)).sigmoid())
        return torch.stack(contents), torch.stack(starts).detach()

    def decode_distinct(
        self, memory: MultiLevelMemory, content: Tensor, boxes: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The last layer's normalised output ``[B, Q, C]``, the boxes ``[B, Q, 4]`` that entered it, and which count.

        The last is ``[B, Q]`` bool.
        """
        kept = torch.ones_like(boxes[..., 0], dtype=torch.bool)  # [B, Q]
        mask = None
        for index, layer in enumerate(self.transformer.decoder.layers):
            content = layer(content, self.position(boxes, memory), on_levels(boxes, memory), memory, mask)
            if index + 1 == self.layers:
                break
            boxes = moved(self.bbox_embed[index](content), boxes, self.epsilon)
            scores = self.class_embed[index](content).amax(-1).sigmoid()  # [B, Q], from the raw output
            survives = surviving(boxes, scores, kept)
            mask = (survives[:, :, None] | survives[:, None, :])[:, None]  # [B, 1, Q, Q]
            kept = survives | survives[:, :1]  # the first row of the mask
        return self.transformer.decoder.norm(content), boxes, kept


class FrozenDdq(FrozenDeformable):
    """DDQ-DETR as it is published."""

    obstacle = "it suppresses queries between its layers, another number in every image"


def surviving(boxes: Tensor, scores: Tensor, among: Tensor) -> Tensor:
    """``[B, Q]`` bool, which of the queries in ``among`` ``[B, Q]`` no better one of them covers."""
    survives = torch.zeros_like(among)
    for image in range(len(boxes)):
        candidates = among[image].nonzero()[:, 0]
        survives[image, candidates[distinct(boxes[image, candidates], scores[image, candidates])]] = True
    return survives


def distinct(boxes: Tensor, scores: Tensor) -> Tensor:
    """``[M]`` indices of what is left of ``[N, 4]`` boxes (cxcywh), best first, after suppression (section 4.3)."""
    corners = box_convert(boxes, "cxcywh", "xyxy")
    # mmcv shifts the boxes of every class apart, here all by as much: rounding decides pairs close to the threshold
    kept: Tensor = nms(corners + (corners.max() + 1), scores, OVERLAP)
    return kept


def build(state: Mapping[str, Tensor], profile: Profile) -> Detector:
    """The frozen detector for a state dict in the authors' layout; errors are those of ``frozen_deformable``."""
    # queries that were suppressed have a score of 0, and give no detections however few are left
    return frozen_deformable(Ddq, state, replace(profile, choice=Choice(above=0.0)), CONSTANTS, FrozenDdq)
