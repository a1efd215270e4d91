"""Files that version 0.1.0 wrote, and places that its users knew: what still works, and what says where it went.

The archive holds a tiny detector, a run that was stopped after its first epoch, its cache, the upgraded checkpoint, and
what 0.1.0 made of them; most weights of the refiner are 0, so that they take no room.
"""

import tarfile
from dataclasses import replace
from importlib import import_module
from pathlib import Path

import pytest
import torch
from torch import Tensor

import refinebox
from refinebox.data import annotations, layout
from refinebox.detection.detector import Detector
from refinebox.files import checkpoint
from refinebox.training.settings import PUBLISHED, RECIPES
from refinebox.training.train import train

ARCHIVE = Path(__file__).with_name("files_0_1_0.tar.gz")
OLD = replace(RECIPES["0.1.0"], epochs=2, batch_size=2, variants=1, augmentation="flip", average=0.0)


@pytest.fixture
def old(tmp_path: Path) -> Path:
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(tmp_path, filter="data")
    return tmp_path


@pytest.fixture
def expected(old: Path) -> dict[str, Tensor]:
    return checkpoint.read(old / "expected.safetensors")[0]


def test_an_upgraded_checkpoint_gives_the_same_boxes(old: Path, expected: dict[str, Tensor]) -> None:
    model = refinebox.load(old / "better.safetensors")
    output = model(torch.linspace(-2, 2, 3 * 64 * 96).view(1, 3, 64, 96), torch.tensor([[64, 96]]))
    torch.testing.assert_close(output.boxes, expected["boxes"], atol=1e-5, rtol=0)


def test_a_refiner_is_read(old: Path) -> None:
    refiner = refinebox.load_refiner(old / "run/best.safetensors")
    assert isinstance(
        refinebox.RefinedDetector(refinebox.load_detector(str(old / "detector.safetensors")), refiner), Detector
    )


def test_a_run_goes_on_from_its_cache(old: Path, expected: dict[str, Tensor], monkeypatch: pytest.MonkeyPatch) -> None:
    detector = refinebox.load_detector(str(old / "detector.safetensors"))
    training, validation = (annotations.read(*layout.find(old / "data", split)) for split in ("train", "val"))
    real, batches = detector.detect, []

    def counted(images: Tensor, sizes: Tensor) -> object:
        batches.append(len(images))
        return real(images, sizes)

    monkeypatch.setattr(detector, "detect", counted)
    train(detector, training, validation, old / "run", OLD, cache=old / "cache", continued=True)
    assert sum(batches) == len(validation.images)  # the training images are in the cache
    state = checkpoint.read(old / "run/last/state.safetensors")[0]
    for name in ("weight", "bias"):
        key = f"model.bboxes_refiner.bboxes_deltas.{name}"
        torch.testing.assert_close(state[key], expected[key], atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize(
    ("name", "home"),
    [
        ("refinebox.detector", "refinebox.detection.detector"),
        ("refinebox.refiner", "refinebox.refinement.refiner"),
        ("refinebox.evaluate", "refinebox.evaluation.evaluator"),
        ("refinebox.train", "refinebox.training.train"),
    ],
)
def test_old_modules_say_where_they_went(name: str, home: str) -> None:
    with pytest.raises(ImportError, match=rf"^{name} is now {home}"):
        import_module(name)


def test_what_was_public_is_found_as_before() -> None:
    from refinebox.testing import check_detector
    from refinebox.zoo import load_detector

    assert check_detector is import_module("refinebox.detection.testing").check_detector
    assert load_detector is import_module("refinebox.detection.zoo").load_detector


def test_published_settings_have_not_moved() -> None:
    assert (PUBLISHED.batch_size, PUBLISHED.learning_rate, PUBLISHED.clip_norm, PUBLISHED.jitter) == (16, 1e-4, 0.1, 0)
