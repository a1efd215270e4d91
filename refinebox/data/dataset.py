"""Annotated images as samples, augmented the same way whoever asks."""

import random
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

import torch
from PIL import Image
from torch.utils.data import Dataset
from torchvision.ops import box_convert, clip_boxes_to_image

from refinebox.boxes import to_fractions
from refinebox.data.annotations import CocoData, labelled_size
from refinebox.data.batches import Batch, Sample, Target, Unreadable, collate
from refinebox.data.images import read_header, read_image
from refinebox.data.input_format import InputFormat, random_crop
from refinebox.data.proposals import Found, Proposals

Augmentation = Literal["multiscale", "flip", "none"]


class CocoDataset(Dataset[Sample | Unreadable]):
    """Images and objects of a data set, as a detector wants them.

    Augmentation depends on (seed, ``variant``, image) alone, so that neither workers nor an interruption change it.
    ``flip`` turns an image around in every other variant.

    Args:
        data: the annotations.
        columns: score column of each category id.
        form: how the detector wants its images.
        augmentation: ``multiscale`` is DETR's recipe (flip, random size, random crop), scaled to the short side; a
            detector that takes one size alone gets flips and crops.
        seed: of the augmentation.
        keep_empty: keep images without objects, as evaluation must and training does not.
        proposals: by image id, boxes from elsewhere; they go wherever the objects go.

    Attributes:
        variant: which decides the augmentation.
        strict: whether an image that cannot be read is an error (FileNotFoundError, ValueError) or :class:`Unreadable`.
    """

    def __init__(
        self,
        data: CocoData,
        columns: Mapping[int, int],
        *,
        form: InputFormat,
        augmentation: Augmentation = "none",
        seed: int = 0,
        keep_empty: bool = True,
        proposals: Mapping[int, Found] | None = None,
    ) -> None:
        self.folder, self.form, self.proposals = data.folder, form, proposals
        self.upright = data.upright
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
        """uint8 image ``[3, H, W]``, target, (height, width) that annotations are of in pixels, image id."""
        entry = self.images[index]
        try:
            image = read_image(self.folder / entry["file_name"], labelled_size(entry), upright=self.upright)
        except (OSError, ValueError) as error:
            if self.strict:
                raise
            return Unreadable(str(error))
        return self._sample(index, image)

    def __getitems__(self, indices: Sequence[int]) -> Batch:
        """One padded batch."""
        return collate([self[index] for index in indices], self.form)

    def unlike_stored(self, index: int) -> list[Any]:
        """What decides how a picture is read that is not taken as it is stored; nothing for all others."""
        entry = self.images[index]
        try:
            header = read_header(self.folder / entry["file_name"])
        except (OSError, ValueError):
            return []
        labelled = labelled_size(entry)
        plain = header.orientation == 1 and labelled in (None, header.size) and not header.deep
        return [] if plain else [header.orientation, labelled, self.upright]

    def _sample(self, index: int, image: Image.Image) -> Sample:
        entry = self.images[index]
        width, height = labelled_size(entry) or image.size
        objects = clip_boxes_to_image(box_convert(self.boxes[index], "xywh", "xyxy"), (height, width))
        found = None if self.proposals is None else self.proposals[entry["id"]]
        boxes = objects if found is None else torch.cat([objects, found.boxes])
        if image.size != (width, height):  # resized after labelling
            boxes = boxes * torch.tensor([image.width / width, image.height / height] * 2)
        choice = random.Random(f"{self.seed} {self.variant} {entry['id']}")
        cropped = self.augmentation == "multiscale" and choice.random() < 0.5
        if cropped:
            image, boxes = random_crop(image, boxes, self.form.side, choice)
        kept = ((boxes[:, 2:] - boxes[:, :2]) > 0).all(-1)
        kept[len(objects) :] |= not cropped  # a detection without area is one all the same, until it is cut off
        fractions = to_fractions(boxes, torch.tensor([image.height, image.width]))
        if self._flips(entry["id"], choice):
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
            fractions = torch.stack([1 - fractions[:, 0], *fractions.unbind(-1)[1:]], dim=-1)
        form, count = self.form, len(objects)
        if self.augmentation == "multiscale" and not form.fixed:
            side = round(choice.choice(range(480, 801, 32)) * form.short_side / 800)
            form = replace(form, short_side=side)
        target = Target(fractions[:count][kept[:count]], self.columns[index][kept[:count]])
        proposals = None
        if found is not None:
            proposals = Proposals(fractions[count:][kept[count:]], found.scores[kept[count:]])
        return form.pixels(image), target, (height, width), entry["id"], proposals

    def _flips(self, image_id: int, choice: random.Random) -> bool:
        if self.augmentation == "flip":
            return (random.Random(f"{self.seed} {image_id}").random() < 0.5) == (self.variant % 2 == 0)
        return self.augmentation == "multiscale" and choice.random() < 0.5
