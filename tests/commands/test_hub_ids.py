"""A name of the hub stands for a file wherever one is named."""

from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from invocation import done, run, the_line

from refinebox.detection.detector import Detector
from refinebox.detection.zoo import describe, load_detector
from refinebox.evaluation.evaluator import METRICS
from refinebox.files import checkpoint
from refinebox.refinement.refiner import Refiner
from refinebox.training.run import write_refiner
from refinebox.training.settings import Settings

huggingface_hub = pytest.importorskip("huggingface_hub", reason="comes with the extra transformers")


@pytest.fixture
def shelf(detector: Detector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder whose files the hub has as ``org/own``: a detector, and a refiner of it."""

    def download(repository: str, file: str) -> str:
        if repository != "org/own" or not (folder / file).is_file():
            raise FileNotFoundError("404")
        return str(folder / file)

    folder = tmp_path / "hub"
    checkpoint.write(
        folder / "tiny.safetensors", detector.tensors(), {"kind": "detector", "detector": describe(detector)}
    )
    torch.manual_seed(0)
    refiner = Refiner(detector.channels, detector.strides)
    metrics = dict.fromkeys(METRICS, 40.0)
    best = {
        "before": metrics,
        "after": metrics,
        "data": {"train": {"images": 6, "boxes": 9}, "val": {"images": 4, "boxes": 7}},
    }
    write_refiner(folder / "best.safetensors", refiner, detector, asdict(Settings()), best)
    (folder / "README.md").write_text("---\nlicense: mit\n---\n")
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    monkeypatch.chdir(tmp_path)
    return folder


def test_detectors_refiners_and_upgraded_files_may_lie_on_the_hub(shelf: Path, shapes_folder: Path) -> None:
    named = "--detector", "org/own:tiny.safetensors", "--refiner", "org/own:best.safetensors"
    shown = done("apply", *named, "--output", "out/better.safetensors", "--card")
    assert f"wrote {Path('out/README.md')}\n" in shown
    card = Path("out/README.md").read_text()
    assert 'base_model: "org/own"' in card
    assert 'license: "mit"' in card
    assert "| training | not from a file | 6 | 9 |" in card
    assert f"`{checkpoint.file_sha256(Path('out/better.safetensors'))}`" in card
    Path("out/better.safetensors").rename(shelf / "better.safetensors")
    assert "kind:          upgraded detector" in done("info", "org/own:better.safetensors")
    assert "4 images: " in done("predict", "org/own:better.safetensors", shapes_folder / "val", "--output", "seen")
    done("eval", "org/own:better.safetensors", "--data", shapes_folder, "--output", "results")
    assert Path("results/after.json").is_file()


def test_weights_may_lie_on_the_hub(shelf: Path) -> None:
    bundled = load_detector("dab-detr-shapes")
    checkpoint.write(shelf / "own.safetensors", bundled.tensors(), {"kind": "detector", "detector": describe(bundled)})
    found = load_detector("dab-detr-shapes", "org/own:own.safetensors")
    assert found.weights_sha256() == bundled.weights_sha256()


def test_a_card_is_never_written_over_another(shelf: Path) -> None:
    (shelf / "README.md").write_text("mine")
    named = "--detector", shelf / "tiny.safetensors", "--refiner", shelf / "best.safetensors"
    line = the_line(run("apply", *named, "--output", shelf / "better.safetensors", "--card"))
    assert line.endswith("README.md is there already; move it away, name another folder, or leave out --card")
    assert not (shelf / "better.safetensors").exists()
    assert (shelf / "README.md").read_text() == "mine"


def test_a_licence_that_is_not_known_is_said(shelf: Path) -> None:
    named = "--detector", shelf / "tiny.safetensors", "--refiner", shelf / "best.safetensors"
    shown = done("apply", *named, "--output", "out/better.safetensors", "--card")
    assert "README.md: look at its licence, which is not known" in shown
    assert 'license: "unknown"' in Path("out/README.md").read_text()


def test_a_file_that_is_not_there_is_one_line(shelf: Path) -> None:
    line = the_line(run("info", "org/own:none.safetensors"))
    assert line == (
        "refinebox: org/own:none.safetensors is no file here and could not be had from the Hugging Face hub (404); "
        "get it from https://huggingface.co/org/own"
    )
