"""Two batches of everything."""

import re
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest

from refinebox.data.annotations import CocoData
from refinebox.detection.detector import Detector
from refinebox.training.rehearsal import first, rehearse
from refinebox.training.settings import Settings

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


def test_images_without_objects_are_passed_over(training: CocoData) -> None:
    ids = [entry["id"] for entry in training.images]
    few = first(training, 2, among=set(ids[2:5]))
    assert [entry["id"] for entry in few.images] == ids[2:4]
    assert {entry["image_id"] for entry in few.annotations} == set(ids[2:4])
    assert len(first(training, 100).images) == len(ids)
