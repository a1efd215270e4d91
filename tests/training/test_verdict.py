"""What a training's figures say, and what they cannot."""

from pathlib import Path
from typing import Any

import pytest

from refinebox.evaluation.evaluator import METRICS, Metrics
from refinebox.training.verdict import FEW_OBJECTS, Report


def report(before: float = 40.0, after: float = 41.0, **more: Any) -> Report:
    metrics: tuple[Metrics, Metrics] = dict.fromkeys(METRICS, before), dict.fromkeys(METRICS, after)
    return Report(Path("best.safetensors"), *metrics, "last", 60.0, **{"objects": 1000, "loss": 0.5, **more})


def test_a_gain_is_sound() -> None:
    assert report().sound
    assert report().verdict().endswith("; the refiner (last weights) is in best.safetensors")


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (report(after=39.0), "the refiner makes these boxes WORSE and should not be applied"),
        (report(before=0.3, after=0.9), "the detector alone finds next to NOTHING here: check that boxes, categories"),
        (report(loss=0.0), r"NOTHING was learned, for no predicted box met an object (loss 0)"),
        (report(objects=FEW_OBJECTS - 1), "99 objects are too few to learn from; annotate 100 at least"),
    ],
    ids=["worse", "no detector", "no loss", "few objects"],
)
def test_a_training_that_says_nothing_is_not_to_be_applied(found: Report, expected: str) -> None:
    assert not found.sound
    assert expected in found.verdict()


def test_several_faults_are_all_told() -> None:
    assert len(report(before=0.0, after=0.0, loss=0.0, objects=3).faults()) == 3
