"""What is in a file, and files that say of themselves what refinebox never writes."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from refinebox.detection.detector import Detector
from refinebox.detection.zoo import load_detector
from refinebox.files import checkpoint
from refinebox.refinement.description import described
from refinebox.refinement.refiner import Refiner
from refinebox.refinement.refiner_file import load_refiner
from refinebox.refinement.upgraded import apply, load, open_model
from refinebox.training.run import write_refiner


@pytest.fixture
def better(detector: Detector, tmp_path: Path) -> Path:
    """An upgraded file."""
    write_refiner(tmp_path / "best.safetensors", Refiner(detector.channels, detector.strides), detector, {}, {})
    apply(detector, None, tmp_path / "best.safetensors", tmp_path / "better.safetensors")
    return tmp_path / "better.safetensors"


def test_an_upgraded_file_is_described(better: Path) -> None:
    lines = described(better)
    assert lines["kind"] == "upgraded detector"
    assert lines["detector"] == "tiny (dab_detr), 6 categories"
    assert lines["parameters"] == f"{sum(tensor.numel() for tensor in load_refiner_of(better).parameters()):,}"


def load_refiner_of(better: Path) -> Refiner:
    return load_refiner(better.with_name("best.safetensors"))


ODD: dict[str, Callable[[dict[str, Any]], Any]] = {
    "null": lambda _: None,
    "number": lambda _: 3,
    "text": lambda _: "upgraded detector",
    "list": lambda _: [1],
    "bare": lambda about: {"kind": about["kind"]},
    "detector of text": lambda about: {**about, "detector": "x"},
    "detector of nothing": lambda about: {**about, "detector": {}},
    "categories of numbers": lambda about: {**about, "detector": {**about["detector"], "categories": [1, 2]}},
    "refiner of text": lambda about: {**about, "refiner": "x"},
    "steps of text": lambda about: {**about, "refiner": {**about["refiner"], "steps": "x"}},
    "architecture of text": lambda about: {**about, "refiner": {**about["refiner"], "architecture": "x"}},
    "top of nothing": lambda about: {**about, "refiner": {**about["refiner"], "top": None}},
}


@pytest.mark.parametrize("name", ODD)
def test_metadata_that_nobody_writes_are_one_line(name: str, better: Path, tmp_path: Path) -> None:
    tensors, about = checkpoint.read(better)
    path = tmp_path / "odd.safetensors"
    path.write_bytes(safetensors.torch.save(tensors, {"refinebox": json.dumps(ODD[name](about))}))
    expected = (
        r"odd\.safetensors (is damaged or incomplete \(its metadata|says of itself what this version cannot read)"
    )
    expected += "|odd.safetensors holds a refiner with "
    with pytest.raises(ValueError, match=expected):
        load(path)
    if name not in ("top of nothing", "categories of numbers"):  # of which a description says nothing
        with pytest.raises(ValueError, match=expected):
            described(path)


@pytest.mark.parametrize("about", [{"kind": "detector"}, {"kind": "detector", "detector": "x"}])
def test_a_plain_detector_that_does_not_say_what_it_is(
    about: dict[str, Any], detector: Detector, tmp_path: Path
) -> None:
    path = tmp_path / "odd.safetensors"
    checkpoint.write(path, detector.tensors(), about)
    for look in (described, load, load_detector):
        with pytest.raises(ValueError, match=r"odd\.safetensors says of itself what this version cannot read \("):
            look(str(path) if look is load_detector else path)  # type: ignore[operator]


def test_tensors_that_no_part_has_are_told(better: Path, tmp_path: Path) -> None:
    tensors, about = checkpoint.read(better)
    checkpoint.write(tmp_path / "odd.safetensors", {**tensors, "other.weight": torch.zeros(1)}, about)
    with pytest.raises(ValueError, match=r"odd\.safetensors says of itself .* \(KeyError: 'other'\)"):
        load(tmp_path / "odd.safetensors")


def test_a_program_of_torch_is_not_run(tmp_path: Path) -> None:
    (tmp_path / "better.pt2").write_bytes(b"PK")
    with pytest.raises(
        ValueError, match=r"better\.pt2 is a program of torch's, which refinebox does not run; name an "
    ):
        open_model(str(tmp_path / "better.pt2"))
