"""DETR (arXiv 2005.12872): learned queries look at the encoded image and each becomes a box or no object."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from refinebox.adapters.parts.network import Encoder, Network, Transformer, frozen
from refinebox.adapters.parts.sizes import Sizes
from refinebox.adapters.parts.transformer import Attention, Memory
from torch import Tensor, nn

from refinebox.detection.detector import Detector
from refinebox.detection.output import DetectorOutput
from refinebox.detection.profile import Profile


class Detr(Network):
    """The network (section 3.2, figure 2).

    Args:
        sizes: what the tensors tell.
        heads: attention heads, 8 in every published model.
        options: of :class:`refinebox.adapters.parts.network.Network`.
    """

    def __init__(self, sizes: Sizes, *, heads: int = 8, temperature: float = 10000.0, **options: Any) -> None:
        super().__init__(sizes, heads=heads, temperature=temperature, **options)
        self.transformer = Transformer(Encoder(sizes, heads, pre_norm=sizes.pre_norm), Decoder(sizes, heads))
        self.query_embed = nn.Embedding(sizes.queries, sizes.width)

    def forward(self, images: Tensor, sizes: Tensor) -> DetectorOutput:
        features, memory = self.encode(images, sizes)
        hidden = self.transformer.decoder(self.query_embed.weight.expand(images.shape[0], -1, -1), memory)  # [B, Q, C]
        return DetectorOutput(features, self.bbox_embed(hidden).sigmoid(), self.class_embed(hidden))


class Decoder(nn.Module):
    """Layers that start from contents of zero; positions, the learned queries, are added at every attention."""

    def __init__(self, sizes: Sizes, heads: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            DecoderLayer(sizes.width, heads, sizes.feedforward, pre_norm=sizes.pre_norm)
            for _ in range(sizes.decoder_layers)
        )
        self.norm = nn.LayerNorm(sizes.width)

    def forward(self, query_position: Tensor, memory: Memory) -> Tensor:
        """``[B, Q, C]`` normalised output of the last layer."""
        content = query_position.new_zeros(query_position.shape)
        for layer in self.layers:
            content = layer(content, query_position, memory)
        normed: Tensor = self.norm(content)
        return normed


class DecoderLayer(nn.Module):
    """Decoder layer that normalises after each part, or before it (``pre_norm``)."""

    def __init__(self, width: int, heads: int, feedforward: int, *, pre_norm: bool = False) -> None:
        super().__init__()
        self.pre_norm = pre_norm
        self.self_attn = Attention(width, heads)
        self.multihead_attn = Attention(width, heads)
        self.linear1 = nn.Linear(width, feedforward)
        self.linear2 = nn.Linear(feedforward, width)
        self.norm1 = nn.LayerNorm(width)
        self.norm2 = nn.LayerNorm(width)
        self.norm3 = nn.LayerNorm(width)

    def forward(self, content: Tensor, query_position: Tensor, memory: Memory) -> Tensor:
        """``[B, Q, C]`` new contents, for contents and query positions of that shape."""
        if self.pre_norm:
            content = content + self._between(self.norm1(content), query_position)
            content = content + self._towards(memory, self.norm2(content), query_position)
            return content + self._fed_forward(self.norm3(content))
        content = self.norm1(content + self._between(content, query_position))
        content = self.norm2(content + self._towards(memory, content, query_position))
        updated: Tensor = self.norm3(content + self._fed_forward(content))
        return updated

    def _between(self, content: Tensor, query_position: Tensor) -> Tensor:
        query = content + query_position
        attended: Tensor = self.self_attn(query, query, content, None)
        return attended

    def _towards(self, memory: Memory, content: Tensor, query_position: Tensor) -> Tensor:
        attended: Tensor = self.multihead_attn(
            content + query_position, memory.tokens + memory.position, memory.tokens, memory.valid
        )
        return attended

    def _fed_forward(self, content: Tensor) -> Tensor:
        updated: Tensor = self.linear2(self.linear1(content).relu())
        return updated


def build(state: Mapping[str, Tensor], profile: Profile) -> Detector:
    """The frozen detector for a state dict in the authors' layout; errors are those of ``frozen``."""
    return frozen(Detr, state, replace(profile, classification="softmax"))
