"""Swin Transformer (arXiv 2103.14030) as a backbone for detection, named like detectron2's checkpoints."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F


@dataclass(frozen=True)
class SwinSizes:
    """Everything about a Swin Transformer that its tensors tell.

    Attributes:
        depths: blocks of each stage.
        heads: attention heads of each stage.
        channels: of each stage.
        window: side of the attention windows, in cells.
    """

    depths: tuple[int, ...]
    heads: tuple[int, ...]
    channels: tuple[int, ...]
    window: int

    @classmethod
    def read(cls, state: Mapping[str, Tensor], prefix: str = "") -> "SwinSizes":
        """The sizes of the Swin Transformer whose tensors stand in ``state`` under ``prefix``.

        Raises:
            KeyError: a tensor that every Swin Transformer has is missing.
        """
        pattern = re.compile(rf"{re.escape(prefix)}layers\.(\d+)\.blocks\.\d+\.norm1\.weight")
        stages = [int(found[1]) for key in state if (found := pattern.fullmatch(key))]
        tables = [
            state[f"{prefix}layers.{stage}.blocks.0.attn.relative_position_bias_table"] for stage in sorted(set(stages))
        ]  # [(2 * window - 1) ** 2, heads] each
        width = state[f"{prefix}patch_embed.proj.weight"].shape[0]
        return cls(
            depths=tuple(stages.count(stage) for stage in range(len(tables))),
            heads=tuple(table.shape[1] for table in tables),
            channels=tuple(width * 2**stage for stage in range(len(tables))),
            window=(round(tables[0].shape[0] ** 0.5) + 1) // 2,
        )

    def build(self, dilation: bool, norm: Callable[[int], nn.Module]) -> "Swin":
        """The untrained network. ``norm`` is for convolutions and plays no part.

        Raises:
            ValueError: ``dilation`` is asked for.
        """
        if dilation:
            raise ValueError("a Swin Transformer cannot be dilated; name a detector without DC5")
        return Swin(self)


class Swin(nn.Module):
    """Four maps at strides 4, 8, 16 and 32, each with a normalisation of its own.

    Detectors that read only the last map publish only its normalisation; the others are then 1 and 0, as in the
    published refiner's training.
    """

    def __init__(self, sizes: SwinSizes) -> None:
        super().__init__()
        self.patch_embed = PatchEmbedding(sizes.channels[0])
        count = len(sizes.depths)
        self.layers = nn.ModuleList(
            Stage(sizes.channels[i], sizes.depths[i], sizes.heads[i], sizes.window, merge=i + 1 < count)
            for i in range(count)
        )
        for index, channels in enumerate(sizes.channels):
            self.add_module(f"norm{index}", nn.LayerNorm(channels))

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """``[B, C_l, H_l, W_l]`` of ``images`` ``[B, 3, H, W]``, fine to coarse."""
        x = self.patch_embed(images)  # [B, H / 4, W / 4, C]
        features = []
        for index, stage in enumerate(self.layers):
            x, after = stage(x)
            features.append(self.get_submodule(f"norm{index}")(x).permute(0, 3, 1, 2))
            x = after
        return tuple(features)


class PatchEmbedding(nn.Module):
    """Patches of 4 x 4 pixels as tokens; images are zero-padded to whole patches."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, channels, 4, stride=4)
        self.norm = nn.LayerNorm(channels)

    def forward(self, images: Tensor) -> Tensor:
        """``[B, H / 4, W / 4, C]``, rounded up."""
        height, width = images.shape[-2:]
        tokens: Tensor = self.norm(self.proj(F.pad(images, (0, -width % 4, 0, -height % 4))).permute(0, 2, 3, 1))
        return tokens


class Stage(nn.Module):
    """Blocks whose windows are shifted in every second one, then, but in the last stage, a merge to half the size."""

    def __init__(self, channels: int, depth: int, heads: int, window: int, *, merge: bool) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            Block(channels, heads, window, shift=window // 2 if index % 2 else 0) for index in range(depth)
        )
        self.downsample = PatchMerging(channels) if merge else None

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The stage's output ``[B, h, w, C]`` and what the next stage starts from."""
        for block in self.blocks:
            x = block(x)
        return x, x if self.downsample is None else self.downsample(x)


class Block(nn.Module):
    """Window attention and a feed-forward part, both normalised before (section 3.2, equation 3)."""

    def __init__(self, channels: int, heads: int, window: int, shift: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(channels)
        self.attn = WindowAttention(channels, heads, window, shift)
        self.norm2 = nn.LayerNorm(channels)
        self.mlp = FeedForward(channels)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x))
        updated: Tensor = x + self.mlp(self.norm2(x))
        return updated


class FeedForward(nn.Module):
    """Four times as wide inside, with GELU."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(channels, 4 * channels)
        self.fc2 = nn.Linear(4 * channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        updated: Tensor = self.fc2(F.gelu(self.fc1(x)))
        return updated


class WindowAttention(nn.Module):
    """Self-attention within windows, with a learned bias for each offset between two cells."""

    def __init__(self, channels: int, heads: int, window: int, shift: int) -> None:
        super().__init__()
        self.heads, self.window, self.shift = heads, window, shift
        self.qkv = nn.Linear(channels, 3 * channels)
        self.proj = nn.Linear(channels, channels)
        self.relative_position_bias_table = nn.Parameter(torch.zeros((2 * window - 1) ** 2, heads))

    def forward(self, x: Tensor) -> Tensor:
        """``[B, h, w, C]`` for maps of that shape, zero-padded to whole windows on the way."""
        batch, height, width, channels = x.shape
        side, shift = self.window, self.shift
        x = F.pad(x, (0, 0, 0, -width % side, 0, -height % side))
        rows, columns = x.shape[1] // side, x.shape[2] // side
        shifted = x.roll((-shift, -shift), (1, 2)) if shift else x
        windows = shifted.view(batch, rows, side, columns, side, channels).transpose(2, 3)
        tokens = windows.reshape(batch, rows * columns, side * side, channels)  # [B, windows, cells, C]
        q, k, v = self.qkv(tokens).unflatten(-1, (3, self.heads, -1)).permute(3, 0, 1, 4, 2, 5)
        bias = self.bias(x.shape[1], x.shape[2])  # [windows or 1, heads, cells, cells]
        attended = F.scaled_dot_product_attention(q, k, v, attn_mask=bias).transpose(2, 3).flatten(3)
        tokens = self.proj(attended).view(batch, rows, columns, side, side, channels).transpose(2, 3)
        x = tokens.reshape(batch, rows * side, columns * side, channels)
        if shift:
            x = x.roll((shift, shift), (1, 2))
        return x[:, :height, :width]

    def bias(self, height: int, width: int) -> Tensor:
        """What is added to the attention scores of a padded map: the learned bias, and where shifted, the borders."""
        side = self.window
        cells = torch.arange(side, device=self.relative_position_bias_table.device)
        offset = cells[:, None] - cells + side - 1  # [side, side] between 0 and 2 * side - 2
        index = offset[:, None, :, None] * (2 * side - 1) + offset[None, :, None, :]  # [row, column, row, column]
        bias = self.relative_position_bias_table[index.reshape(-1)].view(side**2, side**2, -1).permute(2, 0, 1)[None]
        if not self.shift:
            return bias
        # after the roll the last windows also hold cells from the opposite border, which the others must not see
        rolled = [torch.arange(length, device=cells.device) >= length - self.shift for length in (height, width)]
        regions = rolled[0][:, None] * 2 + rolled[1]  # [h, w]
        windows = regions.view(height // side, side, width // side, side).transpose(1, 2).reshape(-1, side**2)
        apart = (windows[:, :, None] != windows[:, None, :])[:, None]  # [windows, 1, cells, cells]
        return bias - 100.0 * apart


class PatchMerging(nn.Module):
    """Four neighbours become one token of twice the channels; odd sizes are zero-padded."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(4 * channels)
        self.reduction = nn.Linear(4 * channels, 2 * channels, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """``[B, h / 2, w / 2, 2 C]``, rounded up, for ``[B, h, w, C]``."""
        height, width = x.shape[1:3]
        x = F.pad(x, (0, 0, 0, width % 2, 0, height % 2))
        quarters = [x[:, row::2, column::2] for column in (0, 1) for row in (0, 1)]
        merged: Tensor = self.reduction(self.norm(torch.cat(quarters, dim=-1)))
        return merged
