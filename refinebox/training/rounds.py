"""Trainings of no fixed length: rounds, each twice as long as the one before, until AP rises no more."""

from collections.abc import Callable, Mapping
from typing import Any

from refinebox.evaluation.evaluator import Metrics, points
from refinebox.progress import tell
from refinebox.training.held_out import by_heart
from refinebox.training.learner import Learner
from refinebox.training.run import Run
from refinebox.training.settings import ROUNDS, Settings

RISE = 0.3  # points of AP; rounds that bring less are noise
Judge = Callable[[], Mapping[str, Metrics]]  # of the held-out images


def finished(run: Run, learner: Learner, settings: Settings, judge: Judge) -> bool:
    """Whether the training is over: all epochs are done, or a round of it has hardly moved AP.

    The learning rate has fallen to zero at the end of a round, where the AP is that of a finished training. It is
    written down as soon as it is known, so that an interrupted training goes on as it would have.
    """
    progress = run.progress
    if progress.step or not settings.growing or progress.epoch not in ROUNDS:
        return progress.epoch == settings.epochs
    number = ROUNDS.index(progress.epoch)
    if len(progress.rounds) == number:
        progress.rounds.append(reached(progress.best or {}, judge()))
        run.save(learner)
    if number == 0:
        return progress.epoch == settings.epochs
    earlier, last = progress.rounds[-2:]
    if last - earlier < RISE:
        tell(f"{progress.epoch} epochs are enough: AP is {last:.1f}, and was {earlier:.1f} a round before")
        return True
    return progress.epoch == settings.epochs


def reached(best: Mapping[str, Any], held_out: Mapping[str, Metrics]) -> float:
    """AP on the held-out images; the ``best`` epoch's on validation images where the detector knows those by heart."""
    own, unseen = ((metrics.get("clipped") or metrics["before"])["AP"] for metrics in (held_out, best))
    if by_heart(own, unseen):
        return points(best["after"])
    return max(points(held_out[name]) for name in ("after", "averaged") if name in held_out)
