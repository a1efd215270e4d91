"""A few images through every stage."""

import re
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from refinebox import distributed
from refinebox.data import annotations, layout, shapes
from refinebox.data.annotations import CocoData
from refinebox.detection.choice import Choice
from refinebox.detection.detector import Detector
from refinebox.training import held_out as deciding
from refinebox.training import rehearsal, rounds
from refinebox.training.held_out import first
from refinebox.training.rehearsal import rehearse
from refinebox.training.settings import Settings
from refinebox.training.verdict import Report

SETTINGS = Settings(batch_size=2, augmentation="flip", variants=2)


@pytest.mark.parametrize("cached", [False, True])
def test_it_says_what_it_took_and_leaves_nothing(
    detector: Detector,
    training: CocoData,
    validation: CocoData,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    cached: bool,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    line = rehearse(detector, training, validation, SETTINGS, cached=cached)
    assert re.fullmatch(
        r"dry run: 4 training and 4 validation images twice in \d+ s, at most \d+\.\d GiB; all went well", line
    )
    assert list(tmp_path.iterdir()) == []
    assert capsys.readouterr().out == ""


def test_what_would_stop_the_training_stops_it(
    detector: Detector, training: CocoData, validation: CocoData, tmp_path: Path
) -> None:
    gone = replace(training, folder=tmp_path)
    with pytest.raises(ValueError, match="none of 4 training images could be read"):
        rehearse(detector, gone, validation, SETTINGS)
    with pytest.raises(FileNotFoundError):
        rehearse(detector, gone, validation, SETTINGS, strict=True)


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> CocoData:
    folder = tmp_path_factory.mktemp("many")
    shapes.generate(folder, "train", 24, seed=0)
    return annotations.read(*layout.find(folder, "train"))


class LateError(Exception):
    """What would come after hours."""


@pytest.mark.parametrize(
    ("where", "name"),
    [
        (rounds, "points"),
        (deciding, "train_quality"),
        (deciding, "voter"),
        (deciding, "difference"),
        (Report, "verdict"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_would_fail_in_a_late_stage_fails_in_the_rehearsal(
    where: Any, name: str, detector: Detector, many: CocoData, validation: CocoData, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rounds that end, the quality head, and the choice by held-out images, though four images are too few for it."""
    detector.profile = replace(detector.profile, choice=Choice("suppression", iou=0.5, above=0.0))
    settings = replace(SETTINGS, held_out=0.5, quality=True, growing=True, epochs=30)
    monkeypatch.setattr("refinebox.training.quality.STEPS", 2)

    def fail(*_: Any, **__: Any) -> None:
        raise LateError

    monkeypatch.setattr(where, name, fail)
    with pytest.raises(LateError):
        rehearse(detector, many, validation, settings)


def test_it_says_which_images_decided(detector: Detector, many: CocoData, validation: CocoData) -> None:
    line = rehearse(detector, many, validation, replace(SETTINGS, held_out=0.5))
    assert line.startswith("dry run: 4 training, 4 held-out and 4 validation images twice in ")


def test_too_few_held_out_images_to_grow_by_are_told(
    detector: Detector, training: CocoData, validation: CocoData
) -> None:
    with pytest.raises(ValueError, match=r"^--epochs auto asks held-out images when to stop, and 10% of 6 are too few"):
        rehearse(detector, training, validation, replace(SETTINGS, growing=True))


def test_processes_share_the_folder_of_the_first(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(distributed, "rank", lambda: 1)
    monkeypatch.setattr(distributed, "gathered", lambda items: [str(tmp_path), *items])
    with rehearsal.shared_folder() as folder:
        assert folder == tmp_path
    assert tmp_path.is_dir()  # the first removes it


def test_without_any_object_it_says_so(detector: Detector, training: CocoData, validation: CocoData) -> None:
    with pytest.raises(ValueError, match="none of the 4 training images has an object"):
        rehearse(detector, replace(training, annotations=[]), validation, SETTINGS)


def test_images_without_objects_are_passed_over(training: CocoData) -> None:
    ids = [entry["id"] for entry in training.images]
    few = first(training, 2, among=set(ids[2:5]))
    assert [entry["id"] for entry in few.images] == ids[2:4]
    assert {entry["image_id"] for entry in few.annotations} == set(ids[2:4])
    assert len(first(training, 100).images) == len(ids)
