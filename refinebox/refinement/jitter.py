"""Moved copies of objects' boxes, which a refiner learns from beside the predicted ones."""

import zlib
from collections.abc import Sequence

import torch
from torch import Tensor


def noise(image_ids: Sequence[int], counts: Sequence[int], copies: int, key: str) -> Tensor:
    """``[copies, M, 4]`` random numbers between -1 and 1 for the M = sum(counts) boxes of some images.

    They depend on ``key`` and each image's id alone, so neither the batch nor an interruption changes them.
    """
    drawn = [
        torch.rand(copies, count, 4, generator=torch.Generator().manual_seed(zlib.crc32(f"{key} {image_id}".encode())))
        for image_id, count in zip(image_ids, counts, strict=True)
    ]
    return 2 * torch.cat([torch.zeros(copies, 0, 4), *drawn], dim=1) - 1


def jittered(boxes: Tensor, noise: Tensor, amount: float = 0.15) -> Tensor:
    """``[J, N, 4]`` copies of boxes ``[N, 4]`` (cxcywh, fractions).

    Centre and size change by ``noise`` ``[J, N, 4]``, between -1 and 1, times ``amount`` of each side.
    """
    noise = amount * noise
    centres, sizes = boxes[:, :2], boxes[:, 2:]
    return torch.cat([centres + noise[..., :2] * sizes, sizes * (1 + noise[..., 2:])], dim=-1).clamp(0, 1)
