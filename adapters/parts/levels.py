"""From backbone maps to tokens of several levels: projections, masks, positions (Deformable DETR, appendix A.2)."""

from collections.abc import Iterator, Sequence

import torch
from refinebox.adapters.parts.deformable_attention import MultiLevelMemory
from refinebox.adapters.parts.deformable_sizes import DeformableSizes
from refinebox.adapters.parts.position import padding_mask, position_embedding
from torch import Tensor, nn

GROUPS = 32  # of the group normalisation after every projection


def projections(sizes: DeformableSizes) -> nn.ModuleList:
    """1x1 convolutions of the coarsest backbone maps, then 3x3 ones of stride 2 from the coarsest map on."""
    inputs = sizes.backbone.channels[-sizes.projected :]
    modules = [nn.Conv2d(channels, sizes.width, 1, bias=sizes.bias) for channels in inputs]
    for index in range(sizes.levels - sizes.projected):
        channels = inputs[-1] if index == 0 else sizes.width
        modules.append(nn.Conv2d(channels, sizes.width, 3, stride=2, padding=1, bias=sizes.bias))
    return nn.ModuleList(nn.Sequential(module, nn.GroupNorm(GROUPS, sizes.width)) for module in modules)


def project(modules: nn.ModuleList, projected: int, features: Sequence[Tensor]) -> list[Tensor]:
    """``[B, C, h, w]`` of every level. The first further level is made from the backbone's map, not its projection."""
    maps = [module(feature) for module, feature in zip(modules[:projected], features[-projected:], strict=True)]
    for index, module in enumerate(modules[projected:]):
        maps.append(module(features[-1] if index == 0 else maps[-1]))
    return maps


def flatten(
    maps: Sequence[Tensor], sizes: Tensor, image: tuple[int, int], temperature: float, offset: float
) -> tuple[MultiLevelMemory, Tensor]:
    """All levels as one sequence, not yet encoded, and its sine embedding ``[B, L, C]`` (without the level's own).

    Args:
        maps: ``[B, C, h, w]`` of each level.
        sizes: ``[B, 2]`` (height, width) of each image without padding, in pixels.
        image: (H, W) of the padded batch.
        temperature, offset: of :func:`refinebox.adapters.parts.position.position_embedding`.
    """
    shapes = tuple((level.shape[-2], level.shape[-1]) for level in maps)
    masks = [padding_mask(sizes, image, shape) for shape in shapes]
    cells = torch.stack([torch.stack([(~mask[:, 0]).sum(1), (~mask[:, :, 0]).sum(1)], -1) for mask in masks], 1)
    positions = [position_embedding(mask, maps[0].shape[1], temperature, offset) for mask in masks]
    return (
        MultiLevelMemory(tokens(maps), torch.cat([mask.flatten(1) for mask in masks], 1), cells, shapes),
        tokens(positions),
    )


def tokens(maps: Sequence[Tensor]) -> Tensor:
    """``[B, L, C]`` of maps ``[B, C, h, w]``."""
    return torch.cat([level.flatten(2).transpose(1, 2) for level in maps], 1)


def centres(memory: MultiLevelMemory) -> Iterator[Tensor]:
    """For each level ``[h * w, 2]`` (x, y) of its cells' centres, counted in cells."""
    for height, width in memory.shapes:
        rows, columns = (torch.arange(side, device=memory.tokens.device) + 0.5 for side in (height, width))
        yield torch.cartesian_prod(rows, columns).flip(1)
