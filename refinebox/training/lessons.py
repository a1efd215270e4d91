"""What a refiner learns from: training images as its detector sees them, in the order that the seed decides."""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from refinebox import distributed
from refinebox.data import batches
from refinebox.data.annotations import CocoData
from refinebox.data.categories import Matching
from refinebox.data.dataset import CocoDataset
from refinebox.detection.detector import Detector
from refinebox.evaluation.link import Link
from refinebox.progress import track
from refinebox.training.cache import Cache
from refinebox.training.observation import Observation, observe
from refinebox.training.settings import Settings


class Lessons:
    """The training images of one detector, batch by batch; the order of an epoch depends on seed and epoch alone.

    Args:
        detector, training, settings: what is trained on what, and how.
        categories: how the data's are matched with the detector's.
        workers: processes that read images.
        cache: folder for what the detector saw, which later epochs and runs read instead of running the detector.
        cache_limit: bytes that this folder may take.
        strict: stop at an image that cannot be read.

    Attributes:
        categories: id and name in the data of every score column in turn; empty where the data has none for some.

    Raises:
        ValueError: categories differ, or no training image has an object.
    """

    def __init__(
        self,
        detector: Detector,
        training: CocoData,
        settings: Settings,
        categories: Matching = "check",
        *,
        workers: int = 0,
        cache: Path | None = None,
        cache_limit: float = math.inf,
        strict: bool = False,
    ) -> None:
        link = Link.between(detector, training, categories)
        self.detector, self.settings, self.workers = detector, settings, workers
        self.categories = link.categories(training)
        self.dataset = training_dataset(detector, training, link, settings)
        self.dataset.strict = strict
        if not len(self.dataset):
            raise ValueError(f"none of the {len(training.images)} training images has an object; check the annotations")
        self.pixels = settings.architecture.stem
        self.cache = (
            None
            if cache is None
            else Cache(
                cache,
                cache_limit,
                detector,
                self.dataset,
                settings.architecture.enlargement,
                pixels=self.pixels,
            )
        )

    def __len__(self) -> int:
        """Images."""
        return len(self.dataset)

    def steps(self, epoch: int = 0) -> list[Sequence[int]]:
        """The indices of the images of every step of an epoch."""
        order = batches.shuffled(len(self.dataset), self.settings.seed, epoch)
        return batches.cut(order, self.settings.batch_size)

    def batches(self, epoch: int, done: int = 0) -> Iterator[list[Any]]:
        """For every step of an epoch but those that are ``done``, the parts of its batch that this process has.

        Every process takes its share of every batch, and in as many parts as memory demands; progress is shown.
        """
        self.dataset.variant = self.settings.variant(epoch)
        pieces = self.settings.accumulate
        parts, rank = distributed.processes() * pieces, distributed.rank() * pieces
        shares = [[step[rank + part :: parts] for part in range(pieces)] for step in self.steps(epoch)[done:]]
        shares = [[piece for piece in share if len(piece)] for share in shares]
        source, device = self.cache or self.dataset, next(self.detector.parameters()).device
        loader = iter(batches.loaded(source, [piece for share in shares for piece in share], self.workers, device))
        for share in track(shares, f"epoch {epoch + 1}/{self.settings.epochs}", len(shares)):
            yield [next(loader).to(device) for _ in share]

    def observe(self, batch: Any) -> Observation:
        """What the detector sees in one of the ``batches``, or saw when the cache took it down."""
        if self.cache is None:
            return observe(self.detector, batch, pixels=self.pixels)
        return self.cache.observe(self.detector, batch)

    def shortage(self) -> str:
        """A line for the user if the cache could not keep all since the last call, or nothing."""
        return "" if self.cache is None else self.cache.shortage()


def training_dataset(detector: Detector, training: CocoData, link: Link, settings: Settings) -> CocoDataset:
    """The augmented training images, without those that have no object."""
    return CocoDataset(
        training,
        link.columns,
        form=detector.profile.input,
        augmentation=settings.augmentation,
        seed=0 if settings.variants else settings.seed,  # so that runs with other seeds can share a cache
        keep_empty=False,
        proposals=detector.proposals(training, link.columns),
    )
