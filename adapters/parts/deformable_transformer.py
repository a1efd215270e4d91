"""Encoder and decoder layers of the deformable DETRs. Tensors are batch first, names those of the authors."""

import torch
from refinebox.adapters.parts.deformable_attention import DeformableAttention, MultiLevelMemory
from refinebox.adapters.parts.deformable_sizes import DeformableSizes
from refinebox.adapters.parts.levels import centres
from refinebox.adapters.parts.transformer import Attention
from torch import Tensor, nn


def attention(sizes: DeformableSizes, heads: int) -> DeformableAttention:
    """A deformable attention over all levels; the points of a head and level follow from the tensors."""
    return DeformableAttention(sizes.width, heads, sizes.levels, sizes.samples // (heads * sizes.levels))


class DeformableEncoder(nn.Module):
    """Every token looks at the points around its own cell in all levels (Deformable DETR, section 4.1)."""

    def __init__(self, sizes: DeformableSizes, heads: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(DeformableEncoderLayer(sizes, heads) for _ in range(sizes.encoder_layers))

    def forward(self, memory: MultiLevelMemory, position: Tensor) -> MultiLevelMemory:
        reference = self.reference(memory)
        for layer in self.layers:
            memory = memory._replace(tokens=layer(memory, position, reference))
        return memory

    @staticmethod
    def reference(memory: MultiLevelMemory) -> Tensor:
        """``[B, L, levels, 2]`` every token's own cell, as fractions of each padded level."""
        own = [
            cell / memory.cells[:, None, level].float() for level, cell in enumerate(centres(memory))
        ]  # [B, h * w, 2] fractions of the unpadded image
        return torch.cat(own, 1)[:, :, None] * memory.valid_ratios[:, None]


class DeformableEncoderLayer(nn.Module):
    """Post-norm encoder layer."""

    def __init__(self, sizes: DeformableSizes, heads: int) -> None:
        super().__init__()
        self.self_attn = attention(sizes, heads)
        self.norm1 = nn.LayerNorm(sizes.width)
        self.linear1 = nn.Linear(sizes.width, sizes.feedforward)
        self.linear2 = nn.Linear(sizes.feedforward, sizes.width)
        self.norm2 = nn.LayerNorm(sizes.width)

    def forward(self, memory: MultiLevelMemory, position: Tensor, reference: Tensor) -> Tensor:
        """``[B, L, C]`` new tokens."""
        tokens = memory.tokens
        tokens = self.norm1(tokens + self.self_attn(tokens + position, reference, memory))
        updated: Tensor = self.norm2(tokens + self.linear2(self.linear1(tokens).relu()))
        return updated


class DeformableDecoderLayer(nn.Module):
    """Post-norm decoder layer: queries look at each other, then at points around their reference in the memory."""

    def __init__(self, sizes: DeformableSizes, heads: int) -> None:
        super().__init__()
        self.cross_attn = attention(sizes, heads)
        self.norm1 = nn.LayerNorm(sizes.width)
        self.self_attn = Attention(sizes.width, heads)
        self.norm2 = nn.LayerNorm(sizes.width)
        self.linear1 = nn.Linear(sizes.width, sizes.feedforward)
        self.linear2 = nn.Linear(sizes.feedforward, sizes.width)
        self.norm3 = nn.LayerNorm(sizes.width)

    def forward(
        self, content: Tensor, position: Tensor, reference: Tensor, memory: MultiLevelMemory, mask: Tensor | None
    ) -> Tensor:
        """``[B, N, C]`` new contents.

        Args:
            content, position: ``[B, N, C]`` of the queries.
            reference: ``[B, N, levels, 2 or 4]`` points or boxes, fractions of each padded level.
            memory: the encoder's output.
            mask: bool, ``[N, N]`` or ``[B, 1, N, N]``, True where a query may look at another; None for everywhere.
        """
        query = content + position
        content = self.norm2(content + self.self_attn(query, query, content, mask))
        content = self.norm1(content + self.cross_attn(content + position, reference, memory))
        updated: Tensor = self.norm3(content + self.linear2(self.linear1(content).relu()))
        return updated
