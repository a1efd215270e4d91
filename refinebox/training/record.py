"""What a frozen detector saw in one image: matched boxes, and the cells of its feature maps near them.

A refiner reads maps only around its boxes, so a record is a small part of what the detector computes.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import safetensors.torch
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from refinebox.boxes import to_pixels
from refinebox.refinement.pooling import levels
from refinebox.refinement.pyramid import STEM_REACH
from refinebox.training.observation import Observation

DRIFT = 0.5  # of its sides that a box may move, grow or shrink by while it is refined
MARGIN = 4  # cells of stride 4 or more that bilinear sampling and the pyramid's convolutions reach further
LARGEST = 65504  # in half precision


@dataclass(frozen=True)
class Record:
    """One image.

    Attributes:
        boxes, wanted: ``[M, 4]`` as in :class:`refinebox.training.observation.Observation`.
        size: ``[2]`` (height, width) without padding, in pixels.
        objects: how many there are; more than M where the detector has too few queries.
        kept: which cells of each map are known, ``[H_l, W_l]`` bool; empty for a record of boxes alone.
        values: those cells, ``[N_l, C_l]`` in half precision.
    """

    boxes: Tensor
    wanted: Tensor
    size: Tensor
    objects: int
    kept: tuple[Tensor, ...] = ()
    values: tuple[Tensor, ...] = ()

    def to(self, device: torch.device) -> "Record":
        """The same record on ``device``."""
        boxes, wanted, size = (tensor.to(device) for tensor in (self.boxes, self.wanted, self.size))
        kept, values = (tuple(tensor.to(device) for tensor in tensors) for tensors in (self.kept, self.values))
        return Record(boxes, wanted, size, self.objects, kept, values)

    def without_cells(self) -> "Record":
        """The boxes alone."""
        return replace(self, kept=(), values=())


def recorded(
    seen: Observation,
    index: int,
    objects: int,
    padded: Sequence[int],
    strides: Sequence[int],
    enlargement: float = 1.0,
) -> Record:
    """The record of image ``index`` of a batch that was ``padded`` to (height, width) pixels.

    It serves refiners that pool from boxes with sides up to ``enlargement`` times their own. It has no cells where the
    maps are not of ``padded`` size over stride: they could not be laid out for other batches.
    """
    own = seen.image == index
    record = Record(seen.boxes[own], seen.wanted[own], seen.sizes[index], objects)
    sizes = map_sizes(padded, strides)
    if [tuple(feature.shape[-2:]) for feature in seen.features] != sizes:
        return record
    pixels = to_pixels(torch.cat([record.boxes, record.wanted]), record.size)
    kept = readable(pixels, sizes, strides, enlargement)
    values = [
        feature[index].permute(1, 2, 0)[cells].clamp(-LARGEST, LARGEST).half()
        for feature, cells in zip(seen.features, kept, strict=True)
    ]
    return replace(record, kept=tuple(kept), values=tuple(values))


def readable(
    pixels: Tensor, sizes: Sequence[tuple[int, int]], strides: Sequence[int], enlargement: float = 1.0
) -> list[Tensor]:
    """``[H_l, W_l]`` bool for each map: the cells that the refiner may read for boxes ``[N, 4]`` (xyxy, pixels).

    A box is pooled from the level of its size, into which all coarser levels are merged. Around a box that has drifted
    by so much, the refiner still sees as far as ``enlargement`` says.
    """
    outwards = pixels.new_tensor([-1, -1, 1, 1])
    sides = (pixels[:, 2:] - pixels[:, :2]).repeat(1, 2)  # [N, 4]
    finest = levels(pixels - outwards * DRIFT / 2 * sides, strides)  # of the box at its smallest
    area = pixels + outwards * (DRIFT + (enlargement - 1) / 2) * sides
    kept = []
    for level, ((height, width), stride) in enumerate(zip(sizes, strides, strict=True)):
        margin = MARGIN if stride > 1 else STEM_REACH  # pixels are read by the stem
        x0, y0, x1, y1 = (area / stride + outwards * margin)[finest <= level].unbind(1)
        rows, columns = (torch.arange(length, device=pixels.device) + 0.5 for length in (height, width))
        in_rows = (y0[:, None] < rows) & (rows < y1[:, None])  # [N, H]
        in_columns = (x0[:, None] < columns) & (columns < x1[:, None])  # [N, W]
        kept.append(in_rows.float().T @ in_columns.float() > 0)
    return kept


def map_sizes(padded: Sequence[int], strides: Sequence[int]) -> list[tuple[int, int]]:
    """(height, width) in cells of each map of a batch ``padded`` to (height, width) pixels; a begun cell counts."""
    return [(-(-padded[0] // stride), -(-padded[1] // stride)) for stride in strides]


def empty_maps(records: Sequence[Record], strides: Sequence[int], device: torch.device) -> list[Tensor]:
    """``[B, C_l, H_l, W_l]`` zeros, of the size that the detector would give for a batch of these images."""
    padded = torch.stack([record.size for record in records]).amax(0).tolist()
    return [
        torch.zeros(len(records), *size, values.shape[1], device=device).permute(0, 3, 1, 2)  # channels last
        for size, values in zip(map_sizes(padded, strides), records[0].values, strict=True)
    ]


def fill(maps: Sequence[Tensor], records: Sequence[Record]) -> None:
    """Writes the cells of the records that have some into ``[B, C_l, H_l, W_l]`` maps; all else becomes zero there."""
    for index, record in enumerate(records):
        for feature, kept, values in zip(maps, record.kept, record.values, strict=False):
            rows, columns = kept.nonzero(as_tuple=True)
            inside = (rows < feature.shape[-2]) & (columns < feature.shape[-1])  # this batch may have less padding
            feature[index] = 0
            feature[index].permute(1, 2, 0)[rows[inside], columns[inside]] = values[inside].to(feature.dtype)


def encode(record: Record) -> bytes:
    """A record as a safetensors file."""
    tensors = {"boxes": record.boxes, "wanted": record.wanted, "size": record.size}
    for level, (kept, values) in enumerate(zip(record.kept, record.values, strict=True)):
        tensors |= {f"kept.{level}": kept, f"values.{level}": values}
    metadata = {"objects": json.dumps(record.objects), "levels": json.dumps(len(record.kept))}
    return safetensors.torch.save({name: tensor.contiguous().cpu() for name, tensor in tensors.items()}, metadata)


def read(path: Path) -> Record | None:
    """The record that :func:`encode` made, or None where there is none or the file is damaged."""
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata()
            kept, values = (
                tuple(file.get_tensor(f"{name}.{level}") for level in range(json.loads(metadata["levels"])))
                for name in ("kept", "values")
            )
            boxes, wanted, size = (file.get_tensor(name) for name in ("boxes", "wanted", "size"))
            return Record(boxes, wanted, size, json.loads(metadata["objects"]), kept, values)
    except (OSError, SafetensorError, KeyError, TypeError, ValueError):
        return None
