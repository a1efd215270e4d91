"""Conditional DETR (arXiv 2108.06152): queries look for content and for a place, each in its own half of a head."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from refinebox.adapters.parts.network import Encoder, Network, Transformer, frozen
from refinebox.adapters.parts.position import anchor_embedding
from refinebox.adapters.parts.sizes import Sizes
from refinebox.adapters.parts.transformer import MLP, ConditionalDecoderLayer, Memory
from torch import Tensor, nn

from refinebox.boxes import inverse_sigmoid
from refinebox.detection.choice import Choice
from refinebox.detection.detector import Detector
from refinebox.detection.output import DetectorOutput
from refinebox.detection.profile import Profile


class ConditionalDetr(Network):
    """The network (section 3).

    Args:
        sizes: what the tensors tell.
        heads: attention heads, 8 in every published model.
        groups: groups of queries that Group DETR (arXiv 2207.13085) trains; only the first takes part in inference.
        epsilon: of the inverse sigmoid of the reference points; 1e-5, but 1e-3 in models that detrex trained.
        options: of :class:`refinebox.adapters.parts.network.Network`.
    """

    def __init__(
        self,
        sizes: Sizes,
        *,
        heads: int = 8,
        temperature: float = 10000.0,
        groups: int = 1,
        epsilon: float = 1e-5,
        **options: Any,
    ) -> None:
        super().__init__(sizes, heads=heads, temperature=temperature, **options)
        if sizes.queries % groups:
            raise ValueError(f"{sizes.queries} queries are no {groups} groups of equal size; name another detector")
        self.epsilon = epsilon
        self.used = sizes.queries // groups
        self.transformer = Transformer(Encoder(sizes, heads), Decoder(sizes, heads))
        self.query_embed = nn.Embedding(sizes.queries, sizes.width)

    def forward(self, images: Tensor, sizes: Tensor) -> DetectorOutput:
        features, memory = self.encode(images, sizes)
        queries = self.query_embed.weight[: self.used].expand(images.shape[0], -1, -1)  # [B, Q, C]
        hidden, reference = self.transformer.decoder(queries, memory)
        moves = self.bbox_embed(hidden)  # [B, Q, 4]
        # the reference point is where the centre starts from; width and height start from nothing
        centres = moves[..., :2] + inverse_sigmoid(reference, self.epsilon)
        boxes = torch.cat([centres, moves[..., 2:]], dim=-1).sigmoid()
        return DetectorOutput(features, boxes, self.class_embed(hidden))


class Decoder(nn.Module):
    """Layers that share one reference point a query (section 3.3)."""

    def __init__(self, sizes: Sizes, heads: int) -> None:
        super().__init__()
        width = sizes.width
        self.layers = nn.ModuleList(
            ConditionalDecoderLayer(width, heads, sizes.feedforward, nn.ReLU(), first=index == 0)
            for index in range(sizes.decoder_layers)
        )
        self.norm = nn.LayerNorm(width)
        self.query_scale = MLP(width, width, width, depth=2)
        self.ref_point_head = MLP(width, width, 2, depth=2)

    def forward(self, query_position: Tensor, memory: Memory) -> tuple[Tensor, Tensor]:
        """The last layer's normalised output ``[B, Q, C]`` and the reference points ``[B, Q, 2]`` (cx, cy)."""
        reference = self.ref_point_head(query_position).sigmoid()  # [B, Q, 2]
        place = anchor_embedding(reference, query_position.shape[-1])  # [B, Q, C]
        content = query_position.new_zeros(query_position.shape)
        for index, layer in enumerate(self.layers):
            # what a query holds rescales where it looks; the first layer holds nothing yet
            query_sine = place if index == 0 else place * self.query_scale(content)
            content = layer(content, query_position, query_sine, memory, None)
        return self.norm(content), reference


def build(state: Mapping[str, Tensor], profile: Profile) -> Detector:
    """The frozen detector for a state dict in the authors' layout; errors are those of ``frozen``."""
    # the authors keep the 100 best detections, detrex 300
    limit = 300 if profile.layout == "detrex" else 100
    return frozen(ConditionalDetr, state, replace(profile, choice=Choice(limit=limit)))
