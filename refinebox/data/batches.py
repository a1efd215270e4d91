"""Annotated images to padded batches."""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision.ops import box_convert, clip_boxes_to_image

from refinebox.boxes import to_fractions
from refinebox.data.annotations import CocoData as CocoData
from refinebox.data.annotations import find as find  # whoever makes batches reads annotations first
from refinebox.data.annotations import read as read
from refinebox.data.images import Layout, normalise_padded, pad, random_crop, read_image, to_pixels

Augmentation = Literal["multiscale", "flip", "none"]


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
        images: ``[B, 3, H, W]`` zero-padded right and bottom: uint8 as it is loaded, which is a quarter of what travels
            between processes and to the device, and normalised float32, as detectors want it, after :meth:`to`.
        sizes: ``[B, 2]`` (height, width) without padding, in pixels.
        original_sizes: ``[B, 2]`` (height, width) of the image files, in pixels.
        targets: one for each image.
        image_ids: the annotation file's ids.
        unreadable: of each image that is left out, why; with all left out, the batch is empty.
    """

    images: Tensor
    sizes: Tensor
    original_sizes: Tensor
    targets: list[Target]
    image_ids: list[int]
    unreadable: list[str] = field(default_factory=list)

    @property
    def objects(self) -> int:
        """Objects of all images."""
        return sum(len(target.boxes) for target in self.targets)

    def to(self, device: torch.device) -> "Batch":
        """The same batch with its tensors on ``device``, and its images normalised there."""
        targets = [Target(target.boxes.to(device), target.columns.to(device)) for target in self.targets]
        images = self.images.to(device, non_blocking=True)
        if images.dtype == torch.uint8:
            images = normalise_padded(images, self.sizes)
        sizes, originals = self.sizes.to(device), self.original_sizes.to(device)
        return replace(self, images=images, sizes=sizes, original_sizes=originals, targets=targets)

    def pin_memory(self) -> "Batch":
        """The same batch with its images where CUDA can copy them from while other work goes on."""
        return replace(self, images=self.images.pin_memory())


Sample = tuple[Tensor, Target, tuple[int, int], int]


@dataclass(frozen=True)
class Unreadable:
    """What stands for an image that cannot be read, and why; the reason names the file."""

    reason: str


class CocoDataset(Dataset[Sample | Unreadable]):
    """Images and objects of a data set, as a detector wants them.

    Augmentation depends on (seed, ``variant``, image) alone, so that neither workers nor an interruption change it.
    ``flip`` turns an image around in every other variant.

    Args:
        data: the annotations.
        columns: score column of each category id.
        short_side, long_side: input size, in pixels.
        layout: how the size is rounded; see :func:`refinebox.data.images.resized`.
        augmentation: ``multiscale`` is DETR's recipe (flip, random size, random crop), scaled to ``short_side``.
        seed: of the augmentation.
        keep_empty: keep images without objects, as evaluation must and training does not.

    Attributes:
        variant: which decides the augmentation.
        strict: whether an image that cannot be read is an error (FileNotFoundError, ValueError) or :class:`Unreadable`.
    """

    def __init__(
        self,
        data: CocoData,
        columns: Mapping[int, int],
        *,
        short_side: int = 800,
        long_side: int = 1333,
        layout: Layout = "authors",
        augmentation: Augmentation = "none",
        seed: int = 0,
        keep_empty: bool = True,
    ) -> None:
        self.folder, self.short_side, self.long_side, self.layout = data.folder, short_side, long_side, layout
        self.augmentation, self.seed, self.variant, self.strict = augmentation, seed, 0, True
        objects: dict[int, list[dict[str, Any]]] = {entry["id"]: [] for entry in data.images}
        for annotation in data.annotations:
            if not annotation["iscrowd"]:
                objects[annotation["image_id"]].append(annotation)
        self.images = [entry for entry in data.images if keep_empty or objects[entry["id"]]]
        self.boxes = [
            torch.tensor([a["bbox"] for a in objects[e["id"]]]).reshape(-1, 4) for e in self.images
        ]  # xywh pixels
        self.columns = [
            torch.tensor([columns[a["category_id"]] for a in objects[e["id"]]], dtype=torch.int64) for e in self.images
        ]

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Sample | Unreadable:
        """uint8 image ``[3, H, W]``, target, original (height, width) in pixels, image id."""
        try:
            image = read_image(self.folder / self.images[index]["file_name"])
        except (OSError, ValueError) as error:
            if self.strict:
                raise
            return Unreadable(str(error))
        return self._sample(index, image)

    def __getitems__(self, indices: Sequence[int]) -> Batch:
        """One padded batch."""
        return collate([self[index] for index in indices])

    def _sample(self, index: int, image: Image.Image) -> Sample:
        entry = self.images[index]
        original = image.height, image.width
        boxes = clip_boxes_to_image(box_convert(self.boxes[index], "xywh", "xyxy"), original)
        choice = random.Random(f"{self.seed} {self.variant} {entry['id']}")
        if self.augmentation == "multiscale" and choice.random() < 0.5:
            image, boxes = random_crop(image, boxes, self.short_side, choice)
        kept = ((boxes[:, 2:] - boxes[:, :2]) > 0).all(-1)
        fractions = to_fractions(boxes[kept], torch.tensor([image.height, image.width]))
        if self._flips(entry["id"], choice):
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
            fractions = torch.stack([1 - fractions[:, 0], *fractions.unbind(-1)[1:]], dim=-1)
        short_side = self.short_side
        if self.augmentation == "multiscale":
            short_side = round(choice.choice(range(480, 801, 32)) * self.short_side / 800)
        return (
            to_pixels(image, short_side, self.long_side, self.layout),
            Target(fractions, self.columns[index][kept]),
            original,
            entry["id"],
        )

    def _flips(self, image_id: int, choice: random.Random) -> bool:
        if self.augmentation == "flip":
            return (random.Random(f"{self.seed} {image_id}").random() < 0.5) == (self.variant % 2 == 0)
        return self.augmentation == "multiscale" and choice.random() < 0.5


def collate(samples: Sequence[Sample | Unreadable]) -> Batch:
    """One padded batch of those images that could be read."""
    unreadable = [sample.reason for sample in samples if isinstance(sample, Unreadable)]
    found = [sample for sample in samples if not isinstance(sample, Unreadable)]
    images, sizes = pad([sample[0] for sample in found])
    originals = torch.tensor([sample[2] for sample in found], dtype=torch.int64).reshape(-1, 2)
    return Batch(images, sizes, originals, [sample[1] for sample in found], [sample[3] for sample in found], unreadable)


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
