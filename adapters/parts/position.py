"""Sine embeddings: of feature-map positions for the encoder and of anchor boxes for the decoder."""

import math

import torch
from torch import Tensor
from torch.nn import functional as F


def padding_mask(sizes: Tensor, image: tuple[int, int], feature: tuple[int, int]) -> Tensor:
    """``[B, h, w]`` bool, True where a feature-map cell lies in the padding.

    Args:
        sizes: ``[B, 2]`` (height, width) of each image without padding, in pixels.
        image: (H, W) of the padded batch.
        feature: (h, w) of the feature map.
    """
    height, width = image
    rows = torch.arange(height, device=sizes.device) >= sizes[:, :1]  # [B, H]
    columns = torch.arange(width, device=sizes.device) >= sizes[:, 1:]  # [B, W]
    mask = rows[:, :, None] | columns[:, None, :]  # [B, H, W]
    return F.interpolate(mask[:, None].float(), size=feature, mode="nearest")[:, 0].bool()


def position_embedding(mask: Tensor, width: int, temperature: float, offset: float = 0.0) -> Tensor:
    """``[B, width, h, w]`` sine embedding of every cell's row (first half) and column (second half).

    Positions count valid cells only, from 1, and are scaled to 0..2π by each image's own extent (DETR, appendix A.4).

    Args:
        mask: ``[B, h, w]`` bool, True in the padding.
        width: channels of the embedding.
        temperature: of the sine; 10000 in DETR and Conditional DETR, 20 in DAB- and DN-DETR.
        offset: added to every count; -0.5, a cell's centre, in Deformable DETR.
    """
    valid = (~mask).float()
    rows, columns = valid.cumsum(1), valid.cumsum(2)  # [B, h, w]
    rows = (rows + offset) / (rows[:, -1:, :] + 1e-6)
    columns = (columns + offset) / (columns[:, :, -1:] + 1e-6)
    embedding = torch.cat([sine(rows, width // 2, temperature), sine(columns, width // 2, temperature)], dim=-1)
    return embedding.permute(0, 3, 1, 2)


def anchor_embedding(anchors: Tensor, width: int) -> Tensor:
    """``[..., n * width / 2]`` sine embedding of points or boxes, parts in the order cy, cx, w, h.

    Args:
        anchors: ``[..., n]`` cx, cy and, for boxes, w, h; fractions of the unpadded image.
        width: the transformer's width; each coordinate takes half of it.
    """
    x, y, *extent = anchors.unbind(-1)
    return torch.cat([sine(part, width // 2, 10000.0) for part in (y, x, *extent)], dim=-1)


def sine(values: Tensor, width: int, temperature: float) -> Tensor:
    """``[..., width]`` with sin at even and cos at odd places, of ``values`` ``[...]`` between 0 and 1."""
    index = torch.arange(width, dtype=torch.float32, device=values.device)
    period = temperature ** (2 * torch.div(index, 2, rounding_mode="floor") / width)
    phase = values[..., None] * (2 * math.pi) / period  # [..., width]
    return torch.stack([phase[..., 0::2].sin(), phase[..., 1::2].cos()], dim=-1).flatten(-2)
