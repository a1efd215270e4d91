"""Deformable DETR (arXiv 2010.04159): queries look at a few points of every feature level instead of at everything."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from refinebox.adapters.parts import proposals
from refinebox.adapters.parts.deformable_attention import MultiLevelMemory
from refinebox.adapters.parts.deformable_network import DeformableNetwork, frozen_deformable, moved, on_levels
from refinebox.adapters.parts.deformable_sizes import DeformableSizes
from refinebox.adapters.parts.position import sine
from torch import Tensor, nn

from refinebox.detection.detector import Detector
from refinebox.detection.output import DetectorOutput
from refinebox.detection.profile import Choice, Profile

CONSTANTS = {"temperature": 10000.0, "offset": -0.5}


class DeformableDetr(DeformableNetwork):
    """The network (section 4), with iterative box refinement or a second stage where the checkpoint has them.

    Args:
        sizes: what the tensors tell.
        options: of :class:`refinebox.adapters.parts.deformable_network.DeformableNetwork`.
    """

    def __init__(self, sizes: DeformableSizes, **options: Any) -> None:
        super().__init__(sizes, **options)
        self.two_stage = sizes.two_stage
        self.refines = sizes.two_stage or not sizes.shared
        self.variant = "two-stage" if sizes.two_stage else "refine" if self.refines else "plain"
        width = sizes.width
        if sizes.two_stage:
            self.transformer.pos_trans = nn.Linear(2 * width, 2 * width)
            self.transformer.pos_trans_norm = nn.LayerNorm(2 * width)
        else:
            self.query_embed = nn.Embedding(sizes.queries, 2 * width)
            self.transformer.reference_points = nn.Linear(width, 2)

    def predict(self, images: Tensor, sizes: Tensor) -> DetectorOutput:
        features, memory = self.encode(images, sizes)
        content, position, reference = self.chosen(memory) if self.two_stage else self.learned(images.shape[0])
        hidden, reference = self.decode(memory, content, position, reference)[-1]
        logits, boxes = self.heads(self.layers - 1, hidden, reference)
        return DetectorOutput(features, boxes, logits)

    def learned(self, batch: int) -> tuple[Tensor, Tensor, Tensor]:
        """Contents and positions ``[batch, Q, C]``, and the points ``[batch, Q, 2]`` (cx, cy) where queries start."""
        position, content = self.query_embed.weight.expand(batch, -1, -1).chunk(2, dim=-1)
        return content, position, self.transformer.reference_points(position).sigmoid()

    def chosen(self, memory: MultiLevelMemory) -> tuple[Tensor, Tensor, Tensor]:
        """Contents, positions and boxes ``[B, Q, 4]`` of the tokens that score best (appendix A.4)."""
        logits, boxes = self.proposed(memory)
        # by the first category alone: the authors train one foreground class here, which has the first column
        index = proposals.best(logits[..., 0], self.count)
        reference = proposals.rows(boxes, index).sigmoid()
        position, content = self.embedded(reference).chunk(2, dim=-1)
        return content, position, reference

    def embedded(self, boxes: Tensor) -> Tensor:
        """``[B, Q, 2C]`` for boxes ``[B, Q, 4]``, whose sines stand in the order cx, cy, w, h."""
        width = self.transformer.level_embed.shape[-1]
        sines = torch.cat([sine(part, width // 2, 10000.0) for part in boxes.unbind(-1)], dim=-1)
        normed: Tensor = self.transformer.pos_trans_norm(self.transformer.pos_trans(sines))
        return normed

    def decode(
        self, memory: MultiLevelMemory, content: Tensor, position: Tensor, reference: Tensor
    ) -> list[tuple[Tensor, Tensor]]:
        """For each layer, its output ``[B, Q, C]`` and the reference ``[B, Q, 2 or 4]`` that entered it."""
        outputs = []
        for index, layer in enumerate(self.transformer.decoder.layers):
            content = layer(content, position, on_levels(reference, memory), memory, None)
            outputs.append((content, reference))
            if self.refines:  # a point becomes a box (appendix A.4)
                reference = moved(self.bbox_embed[index](content), reference, self.epsilon).detach()
        return outputs


def build(state: Mapping[str, Tensor], profile: Profile) -> Detector:
    """The frozen detector for a state dict in the authors' layout; errors are those of ``frozen_deformable``."""
    epsilon = 1e-3 if profile.layout == "detrex" else 1e-5
    constants = {**CONSTANTS, "epsilon": epsilon, "output_epsilon": epsilon}
    return frozen_deformable(DeformableDetr, state, replace(profile, choice=Choice(limit=100)), constants)
