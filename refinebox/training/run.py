"""The folder of a training: what it was started with, what every epoch gave, the best refiner, and how to go on."""

import json
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

from refinebox import distributed
from refinebox.data.annotations import CocoData
from refinebox.data.input_format import InputFormat
from refinebox.detection.description import describe
from refinebox.detection.detector import Detector
from refinebox.evaluation.evaluator import Metrics, points
from refinebox.files import checkpoint, place
from refinebox.progress import tell
from refinebox.refinement.refiner import Refiner
from refinebox.report import curves
from refinebox.training import resume
from refinebox.training.held_out import Choice
from refinebox.training.learner import Learner
from refinebox.training.settings import FIRST, NEW, Settings
from refinebox.training.tensorboard import Board
from refinebox.training.verdict import Report

METRICS, LOSSES = "metrics.jsonl", "losses.jsonl"  # a line for each epoch
CONFIG = "config.json"
# in how many parts a batch is computed changes the result by rounding and padding alone, as the number of processes
# does; so a training that ran out of memory late can go on
MAY_CHANGE = ("accumulate",)


@dataclass
class Progress:
    """How far a training has come.

    Attributes:
        epoch, step: how many epochs are done, and steps of the one after.
        losses: sums over those steps, by name.
        totals: the total loss of each of them.
        unreadable: why images of this epoch could not be read.
        seconds: wall time, of all sittings together.
        best: epoch, weights (``last`` or ``averaged``) and metrics of the best epoch so far.
        rounds: AP on the held-out images after each round of a training that grows.
    """

    epoch: int = 0
    step: int = 0
    losses: dict[str, float] = field(default_factory=dict)
    totals: list[float] = field(default_factory=list)
    unreadable: list[str] = field(default_factory=list)
    seconds: float = 0.0
    best: dict[str, Any] | None = None
    rounds: list[float] = field(default_factory=list)

    @property
    def place(self) -> str:
        """What was done last, in words."""
        return f"step {self.step} of epoch {self.epoch + 1}" if self.step else f"epoch {self.epoch}"

    def add(self, losses: Mapping[str, float]) -> None:
        """Counts a step."""
        self.step += 1
        self.totals.append(losses["loss"])
        self.losses = {name: self.losses.get(name, 0.0) + loss for name, loss in losses.items()}

    def end_epoch(self, metrics: Mapping[str, Metrics]) -> tuple[dict[str, Any], list[float]]:
        """Counts an epoch; its line in ``metrics.jsonl``, and the loss of each of its steps."""
        means = {name: loss / self.step for name, loss in self.losses.items()}
        totals, self.totals, self.losses = self.totals, [], {}
        self.epoch, self.step = self.epoch + 1, 0
        weights = better_weights(metrics)
        if self.best is None or points(metrics[weights]) > points(self.best["after"]):
            self.best = {
                "epoch": self.epoch,
                "weights": "averaged" if weights == "averaged" else "last",
                "before": metrics.get("voted", metrics["before"]),  # of a detector that votes already
                "clipped": metrics.get("clipped"),
                "after": metrics[weights],
                "far_matches": means.get("far_matches", 0.0),
                "overlap": means.get("overlap"),
            }
        line = {"epoch": self.epoch, **means, **metrics, "seconds": self.seconds}
        if self.unreadable:
            line |= {"unreadable": len(self.unreadable), "such_as": min(self.unreadable)}
            self.unreadable = []
        return line, totals


class Run:
    """A run's folder, written by the first of several processes alone.

    Args:
        output: the folder.
        detector, training, settings: what is trained on what, and how.
        categories: id and name of every score column in the data, to be written with the refiner.
        cached: whether features come from a cache, rounded, which a continued run must do alike.
        data: where the images to learn from and those to judge by come from, to be written with the refiner.
    """

    def __init__(
        self,
        output: Path,
        detector: Detector,
        training: CocoData,
        settings: Settings,
        categories: list[dict[str, Any]],
        *,
        cached: bool = False,
        data: Mapping[str, Any] | None = None,
    ) -> None:
        self.output, self.detector, self.settings, self.categories = output, detector, settings, categories
        self.data = dict(data or {})
        self.configuration = configuration(detector, training, asdict(settings)) | {"cached": cached}
        self.writes = distributed.rank() == 0
        self.best, self.state = output / "best.safetensors", output / "last" / "state.safetensors"
        self.board: Board | None = None
        self.progress = Progress()
        self.start = time.monotonic()

    def open(self, learner: Learner, *, continued: bool, tensorboard: bool, steps: int) -> None:
        """Starts or continues where ``progress`` says; an epoch has so many ``steps``.

        Raises:
            FileExistsError, NotADirectoryError, FileNotFoundError: the folder holds another run, is a file, or holds
                none to continue, or no longer its best refiner.
            ValueError: settings changed since the interruption.
        """
        if self.writes:
            open_run(self.output, self.configuration, continued)
        if continued and self.state.exists():
            with checkpoint.understood(self.state):
                self.progress = Progress(**resume.load(self.state, learner.models, learner.optimizer))
        progress = self.progress
        if progress.best is not None and not checkpoint.read_metadata(self.best):
            raise FileNotFoundError(
                f"{self.best}, the best refiner so far, is gone or damaged; put it back, or start a new run in another "
                "folder"
            )
        self.start = time.monotonic() - progress.seconds
        if self.writes:
            forget_after(self.output, progress.epoch)
        if self.writes and tensorboard:
            self.board = Board(self.output / "tensorboard", progress.epoch * steps + progress.step)

    def note(self, losses: Mapping[str, float], rate: float, before: int) -> None:
        """Counts a step of this epoch, which ``before`` steps of other epochs precede."""
        self.progress.add(losses)
        if self.board is not None:
            self.board.losses(before + self.progress.step, losses, rate)

    def end_epoch(self, learner: Learner, metrics: Mapping[str, Metrics]) -> None:
        """Tells and writes what an epoch gave, the refiner if it is the best so far, and what is needed to go on."""
        progress = self.progress
        steps = (progress.epoch + 1) * progress.step
        progress.seconds = self.seconds()
        line, losses = progress.end_epoch(metrics)
        if self.writes:
            self._publish(learner, line, losses, steps)
        self.save(learner)

    def _publish(self, learner: Learner, line: dict[str, Any], losses: list[float], steps: int) -> None:
        progress = self.progress
        tell(sentence(line, self.settings.epochs))
        epochs = [*read_lines(self.output / METRICS), line]
        write_lines(self.output / METRICS, epochs)
        steps_of_epochs = [*read_lines(self.output / LOSSES), {"epoch": progress.epoch, "losses": losses}]
        write_lines(self.output / LOSSES, steps_of_epochs)
        totals = [loss for epoch in steps_of_epochs for loss in epoch["losses"]]
        curves.write(self.output / "curves.svg", totals, epochs)
        if self.board is not None:
            self.board.epoch(line, steps)
        if progress.best is not None and progress.best["epoch"] == progress.epoch:
            kept = learner.averaged if progress.best["weights"] == "averaged" else learner.refiner
            history = {**progress.best, "categories": self.categories, "data": self.data}
            write_refiner(self.best, kept, self.detector, asdict(self.settings), history)

    def save(self, learner: Learner) -> None:
        """Writes all that is needed to go on from here."""
        self.progress.seconds = self.seconds()
        if self.writes:
            resume.save(self.state, learner.models, learner.optimizer, asdict(self.progress))

    def report(self) -> Report:
        """How the training ended, as the refiner's file says."""
        best = checkpoint.read_metadata(self.best)
        losses = [line["loss"] for line in read_lines(self.output / METRICS)]
        return Report(
            self.best,
            best["before"],
            best["after"],
            best["weights"],
            self.progress.seconds,
            best.get("clipped"),
            Choice.read(best),
            best.get("far_matches", 0.0),
            best.get("overlap"),
            self.configuration["training_boxes"],
            max(losses, default=None),
            self.settings.jitter,
        )

    def seconds(self) -> float:
        """Wall time of all sittings together."""
        return round(time.monotonic() - self.start, 1)


def configuration(detector: Detector, training: CocoData, settings: Mapping[str, Any]) -> dict[str, Any]:
    """What a run's ``config.json`` says, and what must not change before it is continued."""
    return {
        "detector": detector.profile.name,
        "detector_sha256": detector.weights_sha256(),
        **described_input(detector.profile.input),
        "training_images": len(training.images),
        "training_boxes": len(training.annotations),
        **({"prompt": list(detector.category_names.values())} if detector.takes_text else {}),
        **({} if training.given is None else {"given_sha256": sha256(training.given.tobytes()).hexdigest()}),
        **settings,
    }


def described_input(form: InputFormat) -> dict[str, Any]:
    """The input size; the whole format where two sides do not say it, as they did in version 0.1.0."""
    plain = InputFormat(short_side=form.short_side, long_side=form.long_side, rounding=form.rounding)
    return {"short_side": form.short_side, "long_side": form.long_side} if form == plain else {"input": asdict(form)}


def check_place(output: Path, *, continued: bool) -> None:
    """Raises OSError where no run can start: what is there is none to continue, or one, or cannot be written to."""
    place.check_folder(output, " for the run")
    there = (output / CONFIG).exists()
    if there and not continued:
        raise FileExistsError(f"{output} already holds a run; pass --resume to continue it, or name another folder")
    if continued and not there:
        raise FileNotFoundError(f"{output} holds no run to continue; leave out --resume to start one")


def open_run(output: Path, config: Mapping[str, Any], continued: bool) -> None:
    """Makes the run's folder, or checks that the one to continue was started with the same ``config``."""
    check_place(output, continued=continued)
    path = output / CONFIG
    for name in (path.name, METRICS, LOSSES, "curves.svg"):
        checkpoint.remove_leftovers(output / name)
    if not continued:
        checkpoint.write_json(path, config)
        return
    try:
        old = dict(json.loads(path.read_bytes()))
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path} is damaged ({error}); start a new run in another folder") from error
    config = json.loads(json.dumps(config))  # as the file has it: tuples are lists there
    old = {name: asdict(FIRST)[name] for name in NEW} | old  # as version 0.1.0 had them without saying so
    changed = [
        f"{key} was {old.get(key)}, now {config.get(key)}"
        for key in {**old, **config}
        if old.get(key) != config.get(key) and key not in MAY_CHANGE
    ]
    if changed:
        raise ValueError(
            f"{output} was started with other settings: {'; '.join(changed)}; use the old ones or another folder"
        )


def forget_after(output: Path, epoch: int) -> None:
    """Drops the lines of epochs that will be trained again."""
    for path in (output / METRICS, output / LOSSES):
        if path.exists():
            write_lines(path, [line for line in read_lines(path) if line["epoch"] <= epoch])


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The content of a file of JSON lines; none where there is no file.

    Raises ValueError where it is damaged.
    """
    try:
        return [dict(json.loads(line)) for line in path.read_bytes().splitlines()] if path.exists() else []
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path} is damaged ({error}); start a new run in another folder") from error


def write_lines(path: Path, lines: list[dict[str, Any]]) -> None:
    """Writes JSON lines, all or none: appending could end in half a line."""
    checkpoint.write_bytes(path, "".join(f"{json.dumps(line)}\n" for line in lines).encode())


def sentence(line: Mapping[str, Any], epochs: int) -> str:
    """One epoch in one line for people; AP without a difference, for these images choose the epoch."""
    weights = better_weights(line)
    note = " with averaged weights" if weights == "averaged" else ""
    reached = f"loss {line['loss']:.3f}, validation AP {points(line[weights]):.1f}{note}, {line['seconds']:.0f} s"
    text = f"epoch {line['epoch']}/{epochs}: {reached}"
    if count := line.get("unreadable"):
        images = "1 image" if count == 1 else f"{count} images"
        text += f"; left out {images} that could not be read, such as: {line['such_as']}"
    return text


def write_refiner(
    path: Path, refiner: Refiner, detector: Detector, settings: Mapping[str, Any], best: Mapping[str, Any]
) -> None:
    """Writes the refiner and where it comes from, so that it is never applied to another detector by accident."""
    history = {
        "kind": "refiner",
        "strides": refiner.strides,
        "steps": refiner.steps,
        "architecture": asdict(refiner.architecture),
        "detector": detector.profile.name,
        "detector_sha256": detector.weights_sha256(),
        **described_input(detector.profile.input),
        **({"asked": describe(detector)["categories"]} if detector.takes_text else {}),
        "settings": dict(settings),
        **best,
    }
    checkpoint.write(path, refiner.state_dict(), history)


def better_weights(metrics: Mapping[str, Any]) -> str:
    """``after`` or ``averaged``, whichever has the higher AP."""
    return max((name for name in ("after", "averaged") if name in metrics), key=lambda name: points(metrics[name]))
