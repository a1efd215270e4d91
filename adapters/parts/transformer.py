"""Transformer parts that the DETR families share. Tensors are batch first, names those of the authors' checkpoints."""

from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Memory(NamedTuple):
    """What the encoder hands to the decoder.

    Attributes:
        tokens: ``[B, L, C]`` encoded image, L = h * w cells.
        position: ``[B, L, C]`` their sine embedding.
        valid: ``[B, 1, 1, L]`` bool, False in the padding.
    """

    tokens: Tensor
    position: Tensor
    valid: Tensor


class MLP(nn.Module):
    """Linear layers with ReLU between them, ``[..., inputs]`` to ``[..., outputs]``; in float32 also under autocast.

    They place boxes, which the 8 bits of bfloat16 would do to within several pixels.
    """

    def __init__(self, inputs: int, hidden: int, outputs: int, depth: int) -> None:
        super().__init__()
        widths = [inputs, *[hidden] * (depth - 1), outputs]
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(widths))

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            x = x.to(next(self.parameters()).dtype)
            for layer in self.layers[:-1]:
                x = layer(x).relu()
            last: Tensor = self.layers[-1](x)
        return last


class Attention(nn.Module):
    """Multi-head attention with one fused input projection, ``in_proj_weight`` in the order q, k, v."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.in_proj_weight = nn.Parameter(torch.empty(3 * width, width))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * width))
        self.out_proj = nn.Linear(width, width)
        nn.init.xavier_uniform_(self.in_proj_weight)

    def forward(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
        """``[B, N, C]``; ``mask`` is bool, True where a query may look."""
        projected = [
            F.linear(x, weight, bias)
            for x, weight, bias in zip(
                (query, key, value), self.in_proj_weight.chunk(3), self.in_proj_bias.chunk(3), strict=True
            )
        ]
        q, k, v = (split_heads(x, self.heads) for x in projected)
        attended: Tensor = self.out_proj(attend(q, k, v, mask))
        return attended


class OutputProjection(nn.Module):
    """The one tensor pair that Conditional DETR keeps inside an attention whose inputs are projected outside."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.out_proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        projected: Tensor = self.out_proj(x)
        return projected


class EncoderLayer(nn.Module):
    """Encoder layer (DETR, appendix A.3) that normalises after each part, or before it (``pre_norm``)."""

    def __init__(
        self, width: int, heads: int, feedforward: int, activation: nn.Module, *, pre_norm: bool = False
    ) -> None:
        super().__init__()
        self.pre_norm = pre_norm
        self.self_attn = Attention(width, heads)
        self.linear1 = nn.Linear(width, feedforward)
        self.linear2 = nn.Linear(feedforward, width)
        self.norm1 = nn.LayerNorm(width)
        self.norm2 = nn.LayerNorm(width)
        self.activation = activation

    def forward(self, tokens: Tensor, position: Tensor, valid: Tensor) -> Tensor:
        """``[B, L, C]`` for tokens and positions of the same shape; see :class:`Memory` for ``valid``."""
        if self.pre_norm:
            content = self.norm1(tokens)
            query = content + position
            tokens = tokens + self.self_attn(query, query, content, valid)
            return tokens + self._fed_forward(self.norm2(tokens))
        query = tokens + position
        tokens = self.norm1(tokens + self.self_attn(query, query, tokens, valid))
        updated: Tensor = self.norm2(tokens + self._fed_forward(tokens))
        return updated

    def _fed_forward(self, tokens: Tensor) -> Tensor:
        updated: Tensor = self.linear2(self.activation(self.linear1(tokens)))
        return updated


class ConditionalDecoderLayer(nn.Module):
    """Decoder layer with content and position kept apart (Conditional DETR, section 3.3); also DAB- and DN-DETR's.

    Only the first layer of a decoder adds the positions to the contents in cross-attention (``first``).
    """

    def __init__(self, width: int, heads: int, feedforward: int, activation: nn.Module, *, first: bool) -> None:
        super().__init__()
        self.heads = heads
        self.sa_qcontent_proj = nn.Linear(width, width)
        self.sa_qpos_proj = nn.Linear(width, width)
        self.sa_kcontent_proj = nn.Linear(width, width)
        self.sa_kpos_proj = nn.Linear(width, width)
        self.sa_v_proj = nn.Linear(width, width)
        self.self_attn = OutputProjection(width)
        self.ca_qcontent_proj = nn.Linear(width, width)
        self.ca_qpos_proj = nn.Linear(width, width) if first else None
        self.ca_kcontent_proj = nn.Linear(width, width)
        self.ca_kpos_proj = nn.Linear(width, width)
        self.ca_v_proj = nn.Linear(width, width)
        self.ca_qpos_sine_proj = nn.Linear(width, width)
        self.cross_attn = OutputProjection(width)
        self.linear1 = nn.Linear(width, feedforward)
        self.linear2 = nn.Linear(feedforward, width)
        self.norm1 = nn.LayerNorm(width)
        self.norm2 = nn.LayerNorm(width)
        self.norm3 = nn.LayerNorm(width)
        self.activation = activation

    def forward(
        self, content: Tensor, query_position: Tensor, query_sine: Tensor, memory: Memory, query_mask: Tensor | None
    ) -> Tensor:
        """``[B, N, C]`` new contents.

        Args:
            content: ``[B, N, C]`` what the queries hold.
            query_position: ``[B, N, C]`` added in self-attention.
            query_sine: ``[B, N, C]`` matched against the memory's positions in cross-attention.
            memory: the encoder's output.
            query_mask: ``[N, N]`` bool, True where a query may look at another; None for everywhere.
        """
        content = self.norm1(content + self._self_attention(content, query_position, query_mask))
        content = self.norm2(content + self._cross_attention(content, query_position, query_sine, memory))
        updated: Tensor = self.norm3(content + self.linear2(self.activation(self.linear1(content))))
        return updated

    def _self_attention(self, content: Tensor, position: Tensor, mask: Tensor | None) -> Tensor:
        q = self.sa_qcontent_proj(content) + self.sa_qpos_proj(position)
        k = self.sa_kcontent_proj(content) + self.sa_kpos_proj(position)
        q, k, v = (split_heads(x, self.heads) for x in (q, k, self.sa_v_proj(content)))
        attended: Tensor = self.self_attn(attend(q, k, v, mask))
        return attended

    def _cross_attention(self, content: Tensor, position: Tensor, sine: Tensor, memory: Memory) -> Tensor:
        q_content, k_content = self.ca_qcontent_proj(content), self.ca_kcontent_proj(memory.tokens)
        q_sine, k_position = self.ca_qpos_sine_proj(sine), self.ca_kpos_proj(memory.position)
        if self.ca_qpos_proj is not None:
            q_content = q_content + self.ca_qpos_proj(position)
            k_content = k_content + k_position
        # content and position are concatenated head by head, so that each head scores both
        q = torch.cat([split_heads(q_content, self.heads), split_heads(q_sine, self.heads)], dim=-1)
        k = torch.cat([split_heads(k_content, self.heads), split_heads(k_position, self.heads)], dim=-1)
        v = split_heads(self.ca_v_proj(memory.tokens), self.heads)
        attended: Tensor = self.cross_attn(attend(q, k, v, memory.valid))
        return attended


def split_heads(x: Tensor, heads: int) -> Tensor:
    """``[B, heads, N, C / heads]`` for ``[B, N, C]``."""
    return x.reshape(*x.shape[:-1], heads, -1).transpose(1, 2)


def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
    """``[B, N, C]`` softmax attention of split heads, scaled by the query's own head width."""
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask).transpose(1, 2).flatten(2)
