"""Train the refiner on a frozen detector: one readable loop that can be interrupted and continued."""

import math
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

from refinebox import distributed
from refinebox.data.annotations import CocoData
from refinebox.data.categories import Matching
from refinebox.detection.detector import Detector
from refinebox.evaluation import detect
from refinebox.evaluation.evaluator import Metrics
from refinebox.evaluation.link import Link
from refinebox.progress import tell
from refinebox.refinement.refined_detector import RefinedDetector
from refinebox.training.held_out import Splits, conclude
from refinebox.training.interruption import Interrupted, Interruption
from refinebox.training.learner import Learner
from refinebox.training.lessons import Lessons
from refinebox.training.rounds import Judge, finished
from refinebox.training.run import Run
from refinebox.training.settings import Settings
from refinebox.training.verdict import Report


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
    few: int | None = None,
) -> Report:
    """Trains a refiner and writes ``best.safetensors``, ``last/``, ``metrics.jsonl`` and ``config.json`` to ``output``.

    On the CPU, a run that was interrupted and continued ends bit for bit as one that was not. Processes that torchrun
    started share every batch; the first of them writes. Images that cannot be read are left out and counted. A share
    of the training images is not learned from: it decides whether the refiner is worth applying.

    Args:
        detector, training, validation, output, settings: what is trained on what, how, and where the results go.
        categories: how the data's are matched with the detector's.
        workers: processes that read images.
        continued: go on with the run in ``output``.
        cache: folder for what the detector saw, which later epochs and runs read instead of running the detector.
        cache_limit: bytes that this folder may take.
        tensorboard: write event files to ``output``/tensorboard as well.
        strict: stop at an image that cannot be read.
        few: images of every split that are used, of a rehearsal; by default all.

    Raises:
        ValueError: categories differ, settings changed since the interruption, no training image has an object or can
            be read, or, where ``strict``, one cannot; a missing one is then a FileNotFoundError.
        FileExistsError, NotADirectoryError: ``output`` holds another run, or is a file.
        FloatingPointError: the loss is no longer finite; the message names the images.
        ConnectionError: another process has ended.
        Interrupted: SIGTERM or SIGINT came; everything is saved.
    """
    link = Link.between(detector, validation, categories)
    settings = prepared(detector, settings)
    splits = Splits.of(training, validation, settings)
    splits = splits if few is None else splits.few(few)
    lessons = Lessons(
        detector,
        splits.learned,
        settings,
        categories,
        workers=workers,
        cache=cache,
        cache_limit=cache_limit,
        strict=strict,
    )
    learner = Learner.start(detector, settings)
    others, part = {"averaged": learner.averaged} if settings.average else {}, part_size(settings)
    judge = partial(
        detect.evaluate, RefinedDetector(detector, learner.refiner), batch_size=part, workers=workers, others=others
    )
    data = {"train": training.origin(), "val": validation.origin()}
    run = Run(output, detector, training, settings, lessons.categories, cached=cache is not None, data=data)
    run.open(learner, continued=continued, tensorboard=tensorboard, steps=len(lessons.steps()))

    def judge_epoch() -> Mapping[str, Metrics]:
        return judge(splits.validation, link, unreadable=None if strict else run.progress.unreadable)

    def judge_round() -> Mapping[str, Metrics]:
        own = Link.between(detector, training, categories)
        return judge(splits.held_out or splits.learned, own, unreadable=None if strict else [])

    learn(run, learner, lessons, settings, judge_epoch, judge_round)
    if settings.quality or splits.held_out is not None:
        each = splits.learned, splits.held_out, splits.validation
        conclude(run.best, detector, *each, settings, categories, batch_size=part, workers=workers, strict=strict)
    return run.report()


def prepared(detector: Detector, settings: Settings) -> Settings:
    """The settings with an architecture that suits the detector, which now computes as they say."""
    detector.precision = settings.precision
    if settings.compile:
        detector.compile(dynamic=True)
    return replace(settings, architecture=settings.architecture.suited(detector.strides))


def learn(
    run: Run, learner: Learner, lessons: Lessons, settings: Settings, judge_epoch: Judge, judge_round: Judge
) -> None:
    """All epochs that are left, each judged when it ends; what the rounds of a growing training gave decides its end.

    Raises Interrupted as :func:`train`.
    """
    with Interruption() as interruption:
        while not finished(run, learner, settings, judge_round):
            if train_epoch(learner, lessons, settings, run, interruption):
                run.end_epoch(learner, judge_epoch())
            if shortage := lessons.shortage():
                tell(shortage, warning=True)
            if agreed(interruption, learner) and run.progress.epoch < settings.epochs:
                raise Interrupted(
                    f"stopped after {run.progress.place}, everything is saved in {run.output}; "
                    "repeat the command with --resume to continue",
                    interruption.signal,
                )


def train_epoch(learner: Learner, lessons: Lessons, settings: Settings, run: Run, interruption: Interruption) -> bool:
    """What is left of the epoch that the run is in, step by step; whether it came to its end.

    Raises ValueError where no image could be read in any process.
    """
    unreadable: list[str] = []
    epoch, done, steps, completed = run.progress.epoch, run.progress.step, len(lessons.steps()), True
    for batches in lessons.batches(epoch, done):
        rate = settings.rate(epoch * steps + run.progress.step, settings.epochs * steps)
        learner.set_rate(rate)
        unreadable += [reason for batch in batches for reason in batch.unreadable]
        run.note(learner.step(lessons.observe, batches, settings, epoch), rate, epoch * steps)
        if agreed(interruption, learner):
            completed = False
            break
    run.progress.unreadable += distributed.gathered(unreadable)
    if len(run.progress.unreadable) == len(lessons):
        raise ValueError(f"none of {len(lessons)} training images could be read: {min(run.progress.unreadable)}")
    if run.progress.step > done:
        run.save(learner)  # now, because evaluation may take longer than whoever stops it waits
    return completed


def agreed(interruption: Interruption, learner: Learner) -> bool:
    """Whether any process was asked to stop; then all stop after the same step."""
    [asked] = distributed.totals([interruption.signal], learner.device)
    interruption.signal = interruption.signal or asked
    return bool(interruption.signal)


def part_size(settings: Settings) -> int:
    """Images that a process sees at once; evaluation must not need more memory than the steps."""
    return -(-settings.batch_size // (settings.accumulate * distributed.processes()))
