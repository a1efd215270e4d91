"""The demo in a shortened form: every command's code runs, and the summary says what it must."""

import json
import signal
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from refinebox.commands import demo
from refinebox.refinement.refined_detector import RefinedDetector
from refinebox.refinement.upgraded import load
from refinebox.training.interruption import Interrupted

FIGURES = {"AP", "AP50", "AP75", "APs", "APm", "APl"}


def test_demo_writes_all_it_promises(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "demo"
    images = {"train": 8, "val": 6}
    summary = demo.run(output, seed=3, images=images, chosen=replace(demo.settings(), epochs=1))
    assert json.loads((output / "summary.json").read_text()) == summary
    assert summary.keys() == {"before", "clipped", "after", "oracle", "seconds", "seed", "files"}
    assert summary["seed"] == 3
    assert summary["oracle"].keys() == {"none", "class", "box", "both"}
    assert all(
        figures.keys() == FIGURES for figures in (summary["before"], summary["after"], *summary["oracle"].values())
    )
    assert summary["oracle"]["none"] == summary["before"]
    assert all(Path(path).exists() for path in summary["files"].values())
    assert isinstance(load(output / "better.safetensors"), RefinedDetector)
    with Image.open(output / "before_after.png") as picture:
        assert min(picture.size) > 400
    assert "perfect box" in capsys.readouterr().out


def test_a_stopped_demo_says_that_it_starts_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped(*_: object, **__: object) -> None:
        raise Interrupted("stopped after step 3", signal.SIGTERM)

    monkeypatch.setattr("refinebox.training.train.train", stopped)
    with pytest.raises(Interrupted, match=r"^stopped; the demo starts anew, so remove .* or name another$") as caught:
        demo.run(tmp_path / "demo", images={"train": 2, "val": 2})
    assert caught.value.exit_code == 143


def test_bundled_detector_is_loose_but_sound(tmp_path: Path) -> None:
    """AP between 40 and 75 on images it never saw, and at least 15 more with perfect boxes."""
    from refinebox.analysis import oracle
    from refinebox.data import annotations, layout, shapes
    from refinebox.detection.zoo import load_detector
    from refinebox.evaluation.link import Link

    shapes.generate(tmp_path, "val", 60, seed=11)
    validation = annotations.read(*layout.find(tmp_path, "val"))
    detector = load_detector(demo.DETECTOR)
    figures = oracle.analyse(detector, validation, Link.between(detector, validation))
    before, perfect = figures["none"]["AP"], figures["box"]["AP"]
    assert before is not None
    assert perfect is not None
    assert 40 <= before <= 75
    assert perfect - before >= 15


def test_an_existing_folder_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "kept.txt").write_text("mine")
    with pytest.raises(FileExistsError, match="is there already; name another folder with --output, or remove it"):
        demo.run(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["kept.txt"]
