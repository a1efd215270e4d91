"""A training that decides for itself how long it goes on."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from invocation import run

from refinebox.data import annotations, layout, shapes
from refinebox.data.annotations import CocoData
from refinebox.detection.detector import Detector
from refinebox.evaluation.evaluator import Metrics
from refinebox.refinement.architecture import SPATIAL
from refinebox.training import train as training_loop
from refinebox.training.interruption import Interrupted
from refinebox.training.rounds import reached
from refinebox.training.settings import AUTO, ROUNDS, Settings, choose

CPU = torch.device("cpu")
GROWING = choose(
    "default", {"epochs": AUTO, "batch_size": 8, "jitter": 0, "augmentation": "none"}, cached=False, device=CPU
)


def test_every_round_has_a_schedule_of_its_own() -> None:
    rates = [GROWING.rate(step, 30 * 20) for step in range(30 * 20)]
    ends = [20 * epochs for epochs in ROUNDS]
    for start, end in zip([0, *ends], ends, strict=False):
        alone = [Settings().rate(step, end - start) for step in range(end - start)]
        assert rates[start:end] == alone
    assert choose("default", {"epochs": 5}, cached=False, device=CPU).rate(3, 100) == Settings().rate(3, 100)


@pytest.fixture
def pieces(tmp_path: Path) -> CocoData:
    shapes.generate(tmp_path / "data", "train", 20, seed=0)
    return annotations.read(*layout.find(tmp_path / "data", "train"))


def train(
    detector: Detector,
    pieces: CocoData,
    validation: CocoData,
    output: Path,
    held_out: list[float],
    monkeypatch: pytest.MonkeyPatch,
    **options: Any,
) -> int:
    """How many epochs a training took whose held-out images had these APs at the ends of its rounds."""
    aps = iter(held_out)

    def evaluated(_: Any, data: CocoData, *__: Any, **___: Any) -> dict[str, Metrics]:
        ap = 10.0 if data is validation else next(aps)
        return {"before": {"AP": 5.0}, "after": {"AP": 1.0}, "averaged": {"AP": ap}}

    monkeypatch.setattr(training_loop.detect, "evaluate", evaluated)
    monkeypatch.setattr(training_loop, "conclude", lambda *_, **__: None)
    training_loop.train(detector, pieces, validation, output, settings(), **options)
    return len((output / "metrics.jsonl").read_text().splitlines())


def settings() -> Settings:
    options = {"epochs": AUTO, "batch_size": 8, "jitter": 0, "augmentation": "none", "held_out": 0.5, "steps": 1}
    return choose("default", options, cached=False, device=CPU)


@pytest.mark.parametrize(
    ("held_out", "epochs"), [([9.0, 9.2], 6), ([9.0, 8.0], 6), ([1.0, 5.0, 5.2], 14)], ids=["noise", "worse", "third"]
)
def test_it_ends_where_a_round_brings_no_more(
    held_out: list[float],
    epochs: int,
    detector: Detector,
    pieces: CocoData,
    validation: CocoData,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert train(detector, pieces, validation, tmp_path / "run", held_out, monkeypatch) == epochs
    told = f"{epochs} epochs are enough: AP is {held_out[-1]}, and was {held_out[-2]} a round before\n"
    assert told in capsys.readouterr().out
    assert json.loads((tmp_path / "run" / "config.json").read_text())["growing"]


def test_images_that_the_detector_knows_by_heart_end_nothing() -> None:
    """Their AP falls from 73 on, while that of validation images rises."""
    best = {"before": {"AP": 47.4}, "clipped": {"AP": 47.7}, "after": {"AP": 52.1}}
    own: dict[str, Metrics] = {"before": {"AP": 73.5}, "after": {"AP": 69.0}, "averaged": {"AP": 70.0}}
    assert reached(best, own) == 52.1
    assert reached(best, own | {"before": {"AP": 57.0}}) == 70.0


def test_it_goes_on_where_it_was_interrupted(
    detector: Detector, pieces: CocoData, validation: CocoData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the middle of a round, and at its end before the held-out images were asked."""
    whole = train(detector, pieces, validation, tmp_path / "whole", [1.0, 5.0, 5.2], monkeypatch)

    def stopped(*_: Any, **__: Any) -> bool:
        raise Interrupted("enough", 15)

    asked, real = iter([False] * 6), training_loop.finished
    with monkeypatch.context() as patch:
        patch.setattr(training_loop, "finished", lambda *given: stopped() if next(asked, True) else real(*given))
        with pytest.raises(Interrupted):
            train(detector, pieces, validation, tmp_path / "part", [1.0, 5.0], monkeypatch)
    assert train(detector, pieces, validation, tmp_path / "part", [5.0, 5.2], monkeypatch, continued=True) == whole
    losses = [(tmp_path / name / "losses.jsonl").read_text() for name in ("whole", "part")]
    assert losses[0] == losses[1]


def test_too_few_images_to_ask_are_told(detector: Detector, training: CocoData, tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match=r"^--epochs auto asks held-out images when to stop, and 10% of 6 are too few; h"
    ):
        training_loop.train(detector, training, training, tmp_path / "run", GROWING)
    assert GROWING.architecture == SPATIAL


def test_anything_else_is_no_number_of_epochs(tmp_path: Path) -> None:
    arguments = ["train", "--detector", "dab-detr-shapes", "--output", tmp_path, "--epochs", "0"]
    result = run(*arguments)
    assert result.exit_code == 2
    assert "'0' is neither a number from 1 nor auto" in result.stderr
