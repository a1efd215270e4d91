"""Samples to padded batches, in the order that is asked for."""

import random
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from refinebox.data.input_format import InputFormat, pad
from refinebox.data.proposals import Proposals


@dataclass(frozen=True)
class Target:
    """The objects of one image.

    Attributes:
        boxes: ``[N, 4]`` cxcywh, fractions of the image as the detector sees it (resized, unpadded).
        columns: ``[N]`` int64, the score column of each object's category.
    """

    boxes: Tensor
    columns: Tensor


@dataclass(frozen=True)
class Batch:
    """Padded images and their objects.

    Attributes:
        images: ``[B, 3, H, W]`` zero-padded right and bottom: pixels as they are loaded, mostly uint8, which is a
            quarter of what travels between processes and to the device; normalised after :meth:`to`.
        sizes: ``[B, 2]`` (height, width) without padding, in pixels.
        original_sizes: ``[B, 2]`` (height, width) of the image files, in pixels.
        targets: one for each image.
        image_ids: the annotation file's ids.
        unreadable: of each image that is left out, why; with all left out, the batch is empty.
        form: how the pixels are normalised; None when they are.
        proposals: boxes from elsewhere, where the detector takes them.
    """

    images: Tensor
    sizes: Tensor
    original_sizes: Tensor
    targets: list[Target]
    image_ids: list[int]
    unreadable: list[str] = field(default_factory=list)
    form: InputFormat | None = None
    proposals: Proposals | None = None

    @property
    def objects(self) -> int:
        """Objects of all images."""
        return sum(len(target.boxes) for target in self.targets)

    def to(self, device: torch.device) -> "Batch":
        """The same batch with its tensors on ``device``, and its images normalised there."""
        targets = [Target(target.boxes.to(device), target.columns.to(device)) for target in self.targets]
        images = self.images.to(device, non_blocking=True)
        if self.form is not None:
            images = self.form.normalise_padded(images, self.sizes)
        return replace(
            self,
            images=images,
            sizes=self.sizes.to(device),
            original_sizes=self.original_sizes.to(device),
            targets=targets,
            form=None,
            proposals=self.proposals and self.proposals.to(device),
        )

    def pin_memory(self) -> "Batch":
        """The same batch with its images where CUDA can copy them from while other work goes on."""
        return replace(self, images=self.images.pin_memory())


# pixels, objects, original (height, width), image id, proposals
Sample = tuple[Tensor, Target, tuple[int, int], int, Proposals | None]


@dataclass(frozen=True)
class Unreadable:
    """What stands for an image that cannot be read, and why; the reason names the file."""

    reason: str


def collate(samples: Sequence[Sample | Unreadable], form: InputFormat) -> Batch:
    """One padded batch of those images that could be read."""
    unreadable = [sample.reason for sample in samples if isinstance(sample, Unreadable)]
    found = [sample for sample in samples if not isinstance(sample, Unreadable)]
    pixels, targets, originals, ids, proposals = zip(*found, strict=True) if found else ([],) * 5
    images, sizes = pad(pixels, form)
    given = [each for each in proposals if each is not None]
    return Batch(
        images,
        sizes,
        torch.tensor(originals, dtype=torch.int64).reshape(-1, 2),
        list(targets),
        list(ids),
        unreadable,
        form,
        Proposals.of(given) if given else None,
    )


def cut(order: Sequence[int], size: int) -> list[Sequence[int]]:
    """``order`` in pieces of ``size``; the last may be shorter."""
    return [order[start : start + size] for start in range(0, len(order), size)]


def loaded(
    dataset: Dataset[Any], pieces: Sequence[Sequence[int]], workers: int = 0, device: torch.device | None = None
) -> "DataLoader[Any]":
    """One batch for each piece of indices, in their order, as ``dataset`` makes it; every worker prepares two ahead.

    Batches that go to a CUDA ``device`` wait in pinned memory.
    """
    pinned = device is not None and device.type == "cuda"
    return DataLoader(
        dataset,
        batch_sampler=pieces,  # type: ignore[arg-type]
        num_workers=workers,
        collate_fn=_as_it_is,
        pin_memory=pinned,
    )


def _as_it_is(batch: Any) -> Any:
    return batch


def shuffled(count: int, seed: int, epoch: int) -> list[int]:
    """The order of an epoch, a function of seed and epoch alone."""
    order = list(range(count))
    random.Random(f"{seed} {epoch}").shuffle(order)
    return order
