"""What a frozen detector saw of all images, kept in memory, so that many trainings can follow one another quickly."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from refinebox.data.annotations import CocoData
from refinebox.data.batches import Batch, cut
from refinebox.detection.detector import Detector
from refinebox.detection.output import DetectorOutput
from refinebox.evaluation.detect import evaluation_batches
from refinebox.evaluation.link import Link
from refinebox.training.lessons import Lessons
from refinebox.training.observation import Observation, observe

AT_ONCE = 8  # images
Seen = list[tuple[Batch, DetectorOutput]]


@dataclass(frozen=True)
class Remembered:
    """A training batch: what the detector saw, and what a learner asks of any batch."""

    observation: Observation
    objects: int

    @property
    def image_ids(self) -> list[int]:
        return self.observation.image_ids


class Memory:
    """Every training image in each of its augmentations. All images must have one size, padded or not.

    Args:
        lessons: the images, with a fixed number of augmentations.
        pixels: keep those too, for refiners with a stem.
    """

    @torch.no_grad()
    def __init__(self, lessons: Lessons, *, pixels: bool = False) -> None:
        self.seen: dict[tuple[int, int], Remembered] = {}
        detector, device = lessons.detector, next(lessons.detector.parameters()).device
        for variant in range(lessons.settings.variants):
            lessons.dataset.variant = variant
            for indices in cut(range(len(lessons.dataset)), AT_ONCE):
                batch: Batch = lessons.dataset.__getitems__(indices).to(device)
                observed = observe(detector, batch, pixels=pixels)
                for place, index in enumerate(indices):
                    objects = len(batch.targets[place].boxes)
                    self.seen[variant, index] = Remembered(taken(observed, place), objects)

    def batches(self, lessons: Lessons, epoch: int) -> Iterator[list[Remembered]]:
        """The batches of an epoch, in the order that the seed of ``lessons`` decides."""
        variant = lessons.settings.variant(epoch)
        for indices in lessons.steps(epoch):
            parts = [self.seen[variant, index] for index in indices]
            yield [Remembered(joined([each.observation for each in parts]), sum(each.objects for each in parts))]


def taken(observed: Observation, place: int) -> Observation:
    """One image of a batch."""
    of = observed.image == place
    return Observation(
        tuple(feature[place : place + 1].clone() for feature in observed.features),
        observed.boxes[of],
        observed.wanted[of],
        torch.zeros_like(observed.image[of]),
        observed.sizes[place : place + 1],
        observed.image_ids[place : place + 1],
    )


def joined(parts: Sequence[Observation]) -> Observation:
    """Images as a batch again."""
    image: list[Tensor] = [torch.full_like(part.image, place) for place, part in enumerate(parts)]
    return Observation(
        tuple(torch.cat(maps) for maps in zip(*(part.features for part in parts), strict=True)),
        torch.cat([part.boxes for part in parts]),
        torch.cat([part.wanted for part in parts]),
        torch.cat(image),
        torch.cat([part.sizes for part in parts]),
        [image_id for part in parts for image_id in part.image_ids],
    )


@torch.no_grad()
def predicted(detector: Detector, data: CocoData, link: Link) -> Seen:
    """What the detector says of all images of ``data``, in batches."""
    found: Seen = []
    device = next(detector.parameters()).device
    for batch in evaluation_batches(detector, data, link, batch_size=AT_ONCE, workers=0, description="detect"):
        batch = batch.to(device)
        output = detector(batch.images, batch.sizes, batch.proposals)
        found.append((batch, output))
    return found
