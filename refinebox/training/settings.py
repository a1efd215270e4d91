"""What decides the result of a training, and named sets of it."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from itertools import pairwise
from typing import Any, Literal

import torch

from refinebox.data.dataset import Augmentation
from refinebox.detection.profile import Precision
from refinebox.refinement import architecture
from refinebox.refinement.architecture import SPATIAL, Architecture

Schedule = Literal["step", "cosine"]
AUTO = "auto"
ROUNDS = (2, 6, 14, 30)  # epochs after which a training that grows may end


@dataclass(frozen=True)
class Settings:
    """Everything that decides the result of a training.

    The defaults are what docs/results.md found best where training images are few; :data:`PUBLISHED` is the paper's.

    Attributes:
        epochs: passes over the training images; the most there may be where the training is ``growing``.
        growing: train in rounds that end after 2, 6, 14 and 30 epochs, each with a schedule of its own, until a round
            hardly raises AP on the held-out images.
        batch_size: images in a step.
        learning_rate, weight_decay: of AdamW; normalisation layers do not decay.
        schedule: of the learning rate. ``step`` falls to a tenth after 11/12 of all steps, as published; ``cosine``
            warms up over the first twentieth and falls to zero, which is better where steps are few.
        clip_norm: largest L2 norm of the gradient.
        jitter: copies of every object's box, moved and resized by up to 15 % of its sides, that are refined beside the
            matched boxes; 0 in the paper, more where training images are few.
        average: decay of the moving average of the weights, which is evaluated beside them; 0 for none.
        least_overlap: IoU below which a predicted box is not learned from: what it was matched with is another thing.
        held_out: share of the training images that the refiner does not learn from, and that decide whether it is worth
            applying.
        quality: train a head that judges the refined boxes and changes scores.
        architecture: the parts of the refiner.
        steps: how often the refiner moves each box.
        accumulate: parts that a batch is cut into when memory is short; the gradient is that of the whole batch.
        augmentation: ``multiscale`` (DETR's flip, resize and crop), ``flip`` (every other epoch) or ``none``.
        variants: augmentations of each image, used in turn, and the same with every seed; 0 for new ones in every
            epoch.
        precision: of the frozen detector's matrix products; refinement is float32 always.
        compile: run the frozen detector through ``torch.compile``, which takes minutes for every new size of images.
        seed: of the initial weights, the order and the augmentation.
    """

    epochs: int = 12
    growing: bool = False
    batch_size: int = 4
    learning_rate: float = 1.5e-3
    weight_decay: float = 1e-4
    schedule: Schedule = "cosine"
    clip_norm: float = 1.0
    jitter: int = 2
    average: float = 0.998
    least_overlap: float = 0.3
    held_out: float = 0.1
    quality: bool = False
    architecture: Architecture = SPATIAL
    steps: int = 3
    accumulate: int = 1
    augmentation: Augmentation = "multiscale"
    variants: int = 0
    precision: Precision = "float32"
    compile: bool = False
    seed: int = 0

    def rate(self, step: int, steps: int) -> float:
        """The learning rate of ``step``, counted from 0, out of ``steps``."""
        if self.growing:
            step, steps = _in_round(step, steps // self.epochs)
        if self.schedule == "step":
            return self.learning_rate * (0.1 if 12 * step >= 11 * steps else 1.0)
        warmup = min(1.0, 20 * (step + 1) / steps)
        return self.learning_rate * warmup * 0.5 * (1 + math.cos(math.pi * step / steps))

    def variant(self, epoch: int) -> int:
        """The number of the augmentation that all images have in ``epoch``."""
        return epoch % self.variants if self.variants else epoch


def _in_round(step: int, steps_of_epoch: int) -> tuple[int, int]:
    """The place of ``step`` in its round, and the steps of the round."""
    ends = [epochs * steps_of_epoch for epochs in (0, *ROUNDS)]
    start, end = next((start, end) for start, end in pairwise(ends) if step < end)
    return step - start, end - start


PUBLISHED = Settings(
    batch_size=16,
    learning_rate=1e-4,
    schedule="step",
    clip_norm=0.1,
    jitter=0,
    average=0.0,
    least_overlap=0.0,
    held_out=0.0,
    architecture=architecture.PUBLISHED,
    steps=3,
)
FIRST = Settings(
    least_overlap=0.0, held_out=0.0, architecture=architecture.PUBLISHED, steps=3
)  # default of version 0.1.0
RECIPES = {"default": Settings(), "published": PUBLISHED, "0.1.0": FIRST}
NEW = ("least_overlap", "held_out", "quality", "architecture", "growing")  # settings that 0.1.0 did not have
VARIANTS = {"none": 1, "flip": 2, "multiscale": 4}  # that a cache keeps of each image, unless told otherwise


def choose(recipe: str, options: Mapping[str, Any], *, cached: bool, device: torch.device) -> Settings:
    """A recipe with those ``options`` that name a setting and are not None, and what fits a cache and a GPU."""
    names = [field.name for field in fields(Settings)]
    given = {name: options[name] for name in names if options.get(name) is not None}
    if given.get("epochs") == AUTO:
        given |= {"epochs": ROUNDS[-1], "growing": True}
    settings = replace(RECIPES[recipe], **given)
    if cached and "variants" not in given:
        settings = replace(settings, variants=VARIANTS[settings.augmentation])
    if device.type == "cuda" and "precision" not in given:
        settings = replace(settings, precision="bfloat16")
    return settings
