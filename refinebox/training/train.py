"""Train the refiner on a frozen detector: one readable loop that can be interrupted and continued."""

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from refinebox import distributed
from refinebox.data import batches
from refinebox.data.annotations import CocoData
from refinebox.data.categories import Matching
from refinebox.data.dataset import CocoDataset
from refinebox.detection.detector import Detector
from refinebox.evaluation import detect
from refinebox.evaluation.evaluator import Metrics
from refinebox.evaluation.link import Link
from refinebox.progress import track
from refinebox.refinement.refined_detector import RefinedDetector
from refinebox.training import observation
from refinebox.training.cache import Cache
from refinebox.training.interruption import Interrupted, Interruption
from refinebox.training.learner import Learner
from refinebox.training.run import Progress, Run, points
from refinebox.training.settings import Settings


@dataclass(frozen=True)
class Report:
    """How a training ended.

    Attributes:
        best: the file with the refiner of the best epoch.
        before, after: AP and its kin on the validation images in points, without and with that refiner.
        weights: ``last``, as the epoch left them, or ``averaged``.
        seconds: wall time, of all sittings together.
    """

    best: Path
    before: Metrics
    after: Metrics
    weights: str
    seconds: float

    @property
    def gain(self) -> float:
        """AP after less AP before, in points."""
        return points(self.after) - points(self.before)

    def verdict(self) -> str:
        """The result in a sentence; a loss is called a loss."""
        before, after = points(self.before), points(self.after)
        change = f"validation AP {before:.1f} → {after:.1f} ({self.gain:+.1f}) in {self.seconds:.0f} s"
        if self.gain >= 0:
            return f"{change}; the refiner ({self.weights} weights) is in {self.best}"
        return (
            f"{change}: the refiner makes these boxes WORSE and should not be applied; train longer or on more images, "
            "or look at refinebox oracle-analysis: perhaps boxes are not what limits this detector"
        )


def train(
    detector: Detector,
    training: CocoData,
    validation: CocoData,
    output: Path,
    settings: Settings,
    *,
    categories: Matching = "check",
    workers: int = 0,
    continued: bool = False,
    cache: Path | None = None,
    cache_limit: float = math.inf,
    tensorboard: bool = False,
    strict: bool = False,
) -> Report:
    """Trains a refiner and writes ``best.safetensors``, ``last/``, ``metrics.jsonl`` and ``config.json`` to ``output``.

    On the CPU, a run that was interrupted and continued ends bit for bit as one that was not. Processes that torchrun
    started share every batch; the first of them writes. Images that cannot be read are left out and counted.

    Args:
        detector, training, validation, output, settings: what is trained on what, how, and where the results go.
        categories: how the data's are matched with the detector's.
        workers: processes that read images.
        continued: go on with the run in ``output``.
        cache: folder for what the detector saw, which later epochs and runs read instead of running the detector.
        cache_limit: bytes that this folder may take.
        tensorboard: write event files to ``output``/tensorboard as well.
        strict: stop at an image that cannot be read.

    Raises:
        ValueError: categories differ, settings changed since the interruption, no training image has an object or can
            be read, or, where ``strict``, one cannot; a missing one is then a FileNotFoundError.
        FileExistsError, NotADirectoryError: ``output`` holds another run, or is a file.
        FloatingPointError: the loss is no longer finite; the message names the images.
        ConnectionError: another process has ended.
        Interrupted: SIGTERM or SIGINT came; everything is saved.
    """
    links = [Link.between(detector, split, categories) for split in (training, validation)]
    detector.precision = settings.precision
    if settings.compile:
        detector.compile(dynamic=True)
    dataset = training_dataset(detector, training, links[0], settings)
    dataset.strict = strict
    if not len(dataset):
        raise ValueError(f"none of the {len(training.images)} training images has an object; check the annotations")
    source = dataset if cache is None else Cache(cache, cache_limit, detector, dataset)
    learner = Learner.start(detector, settings)
    model = RefinedDetector(detector, learner.refiner)
    others = {"averaged": learner.averaged} if settings.average else {}
    run = Run(output, detector, training, settings, links[0].categories(training), cached=cache is not None)
    steps = len(steps_of(dataset, settings, 0))
    progress = run.open(learner, continued=continued, tensorboard=tensorboard, steps=steps)
    with Interruption() as interruption:
        while progress.epoch < settings.epochs:
            dataset.variant = settings.variant(progress.epoch)
            stopped = train_epoch(detector, learner, source, settings, run, progress, interruption, workers)
            if not stopped:
                metrics = detect.evaluate(
                    model,
                    validation,
                    links[1],
                    batch_size=part_size(settings),
                    workers=workers,
                    others=others,
                    unreadable=None if strict else progress.unreadable,
                )
                run.end_epoch(learner, progress, metrics)
                run.save(learner, progress)
            if isinstance(source, Cache) and (shortage := source.shortage()):
                print(shortage, file=sys.stderr)
            if agreed(interruption, detector) and progress.epoch < settings.epochs:
                raise Interrupted(
                    f"stopped after {progress.place}, everything is saved in {output}; "
                    "repeat the command with --resume to continue",
                    interruption.signal,
                )
    best = progress.best or {}
    return Report(run.best, best["before"], best["after"], best["weights"], progress.seconds)


def part_size(settings: Settings) -> int:
    """Images that a process sees at once; evaluation must not need more memory than the steps."""
    return -(-settings.batch_size // (settings.accumulate * distributed.processes()))


def steps_of(dataset: CocoDataset | Cache, settings: Settings, epoch: int) -> list[Sequence[int]]:
    """The indices of the images of every step of an epoch; the order is a function of seed and epoch alone."""
    return batches.cut(batches.shuffled(len(dataset), settings.seed, epoch), settings.batch_size)


def train_epoch(
    detector: Detector,
    learner: Learner,
    source: CocoDataset | Cache,
    settings: Settings,
    run: Run,
    progress: Progress,
    interruption: Interruption,
    workers: int,
) -> bool:
    """What is left of the epoch that ``progress`` names; notes every step there. Whether it was asked to stop.

    Raises ValueError where no image could be read in any process.
    """
    unreadable: list[str] = []
    epoch = progress.epoch
    observe = partial(source.observe if isinstance(source, Cache) else observation.observe, detector)
    steps = steps_of(source, settings, epoch)
    # every process takes its share of every batch, and in as many parts as memory demands
    parts, rank = distributed.processes() * settings.accumulate, distributed.rank() * settings.accumulate
    shares = [[step[rank + part :: parts] for part in range(settings.accumulate)] for step in steps[progress.step :]]
    device = next(detector.parameters()).device
    loader = iter(batches.loaded(source, [piece for share in shares for piece in share if len(piece)], workers, device))
    stopped = False
    for share in track(shares, f"epoch {epoch + 1}/{settings.epochs}", len(shares)):
        rate = settings.rate(epoch * len(steps) + progress.step, settings.epochs * len(steps))
        for group in learner.optimizer.param_groups:
            group["lr"] = rate
        pieces = [next(loader).to(device) for piece in share if len(piece)]
        unreadable += [reason for batch in pieces for reason in batch.unreadable]
        losses = learner.step(observe, pieces, settings, epoch)
        progress.add(losses)
        if run.board is not None:
            run.board.losses(epoch * len(steps) + progress.step, losses, rate)
        if stopped := agreed(interruption, detector):
            break
    progress.unreadable += distributed.gathered(unreadable)
    if len(progress.unreadable) == len(source):
        raise ValueError(f"none of {len(source)} training images could be read: {min(progress.unreadable)}")
    if shares:
        run.save(learner, progress)  # now, because evaluation may take longer than whoever stops it waits
    return stopped


def agreed(interruption: Interruption, detector: Detector) -> bool:
    """Whether any process was asked to stop; then all stop after the same step."""
    [asked] = distributed.totals([interruption.signal], next(detector.parameters()).device)
    interruption.signal = interruption.signal or asked
    return bool(interruption.signal)


def training_dataset(detector: Detector, training: CocoData, link: Link, settings: Settings) -> CocoDataset:
    """The augmented training images, without those that have no object."""
    return CocoDataset(
        training,
        link.columns,
        short_side=detector.profile.short_side,
        long_side=detector.profile.long_side,
        layout=detector.profile.layout,
        augmentation=settings.augmentation,
        seed=0 if settings.variants else settings.seed,  # so that runs with other seeds can share a cache
        keep_empty=False,
    )
