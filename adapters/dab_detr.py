"""DAB-DETR (arXiv 2201.12329): queries are anchor boxes that every decoder layer moves a little.

The inverse sigmoid keeps 1e-3 away from 0 and 1, as in the authors' code and in detrex. transformers keeps 1e-5, with
which the same weights give other boxes wherever an anchor comes closer than 1e-3 to the border of the image.
"""

from collections.abc import Mapping
from typing import Any

import torch
from refinebox.adapters.parts.network import Encoder, Network, Transformer, frozen
from refinebox.adapters.parts.position import anchor_embedding
from refinebox.adapters.parts.sizes import Sizes
from refinebox.adapters.parts.transformer import MLP, ConditionalDecoderLayer, Memory
from torch import Tensor, nn

from refinebox.boxes import inverse_sigmoid
from refinebox.detection.detector import Detector
from refinebox.detection.output import DetectorOutput
from refinebox.detection.profile import Profile


class DabDetr(Network):
    """The network (section 4.1, figure 6).

    Args:
        sizes: what the tensors tell.
        heads: attention heads, 8 in every published model.
        temperature: of the image position embedding; 20, but 10 for DAB-DETR-R50-DC5.
        options: of :class:`refinebox.adapters.parts.network.Network`.
    """

    def __init__(self, sizes: Sizes, *, heads: int = 8, temperature: float = 20.0, **options: Any) -> None:
        super().__init__(sizes, heads=heads, temperature=temperature, **options)
        encoder = Encoder(sizes, heads, nn.PReLU, rescale=True)
        patterns = nn.Embedding(sizes.patterns, sizes.width) if sizes.patterns else None  # of the "3pat" models
        self.transformer = Transformer(encoder, Decoder(sizes, heads), patterns)
        self.refpoint_embed = nn.Embedding(sizes.queries, 4)

    def forward(self, images: Tensor, sizes: Tensor) -> DetectorOutput:
        features, memory = self.encode(images, sizes)
        content, anchors = self.queries(images.shape[0])
        hidden, reference = self.decode(memory, content, anchors)[-1]
        logits, boxes = self.heads(hidden, reference)
        return DetectorOutput(features, boxes, logits)

    def queries(self, batch: int) -> tuple[Tensor, Tensor]:
        """Contents ``[batch, N, C]`` and anchors ``[batch, N, 4]`` that the decoder starts from.

        N is the number of queries, times the patterns where there are any (pattern-major). Anchors are cxcywh,
        fractions of the unpadded image.
        """
        anchors = self.refpoint_embed.weight.sigmoid()  # [Q, 4]
        patterns = self.transformer.patterns
        if patterns is None:
            content = anchors.new_zeros(len(anchors), self.class_embed.in_features)
        else:
            content = patterns.weight.repeat_interleave(len(anchors), dim=0)  # [P * Q, C]
            anchors = anchors.repeat(patterns.num_embeddings, 1)
        return content.expand(batch, -1, -1), anchors.expand(batch, -1, -1)

    def decode(
        self, memory: Memory, content: Tensor, anchors: Tensor, query_mask: Tensor | None = None
    ) -> list[tuple[Tensor, Tensor]]:
        """For each layer, its normalised output ``[B, N, C]`` and the anchors ``[B, N, 4]`` that entered it.

        Gradients do not flow from one layer's anchors to the layer before, as in the paper.
        """
        layers: list[tuple[Tensor, Tensor]] = self.transformer.decoder(
            memory, content, anchors, self.bbox_embed, query_mask
        )
        return layers

    def heads(self, hidden: Tensor, reference: Tensor) -> tuple[Tensor, Tensor]:
        """Logits ``[B, N, K]`` and boxes ``[B, N, 4]`` (cxcywh, fractions of the unpadded image) of one layer."""
        boxes = (self.bbox_embed(hidden) + inverse_sigmoid(reference)).sigmoid()
        return self.class_embed(hidden), boxes


class Decoder(nn.Module):
    """Layer-by-layer anchor refinement with width- and height-modulated attention (sections 4.2 to 4.4)."""

    def __init__(self, sizes: Sizes, heads: int) -> None:
        super().__init__()
        width = sizes.width
        self.layers = nn.ModuleList(
            ConditionalDecoderLayer(width, heads, sizes.feedforward, nn.PReLU(), first=index == 0)
            for index in range(sizes.decoder_layers)
        )
        self.norm = nn.LayerNorm(width)
        self.query_scale = MLP(width, width, width, depth=2)
        self.ref_point_head = MLP(2 * width, width, width, depth=2)
        self.ref_anchor_head = MLP(width, width, 2, depth=2)

    def forward(
        self, memory: Memory, content: Tensor, anchors: Tensor, box_head: nn.Module, query_mask: Tensor | None
    ) -> list[tuple[Tensor, Tensor]]:
        width = content.shape[-1]
        layers = []
        for index, layer in enumerate(self.layers):
            embedding = anchor_embedding(anchors, width)  # [B, N, 2C]
            query_sine = embedding[..., :width]  # the cy and cx parts
            if index > 0:
                query_sine = query_sine * self.query_scale(content)
            query_sine = query_sine * self._modulation(content, anchors)
            content = layer(content, self.ref_point_head(embedding), query_sine, memory, query_mask)
            layers.append((self.norm(content), anchors))
            # anchors move by the raw output, predictions are made from the normalised one
            anchors = (box_head(content) + inverse_sigmoid(anchors)).sigmoid().detach()
        return layers

    def _modulation(self, content: Tensor, anchors: Tensor) -> Tensor:
        """``[B, N, C]`` factors: reference over anchor height for the cy half, the same of widths for the cx half."""
        reference = self.ref_anchor_head(content).sigmoid()  # [B, N, 2] width, height
        ratio = reference / anchors[..., 2:]
        half = content.shape[-1] // 2
        return torch.cat(
            [ratio[..., 1:].expand(*ratio.shape[:-1], half), ratio[..., :1].expand(*ratio.shape[:-1], half)], -1
        )


def build(state: Mapping[str, Tensor], profile: Profile) -> Detector:
    """The frozen detector for a state dict in the authors' layout; errors are those of ``frozen``."""
    return frozen(DabDetr, state, profile)
