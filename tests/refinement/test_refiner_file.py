"""Refiners from files."""

from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from recorded_refiners import PUBLISHED

from refinebox.files import checkpoint
from refinebox.refinement.architecture import ARCHITECTURES
from refinebox.refinement.quality import Quality
from refinebox.refinement.refiner import Refiner
from refinebox.refinement.refiner_file import load_refiner


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_file_survives_our_own_format(shared: Path, tmp_path: Path, name: str) -> None:
    refiner = load_refiner(shared / f"data/refinebox-official/{name}.pth")
    checkpoint.write(
        tmp_path / "ours.safetensors", refiner.state_dict(), {"kind": "refiner", "strides": [4, 8, 16, 32], "steps": 3}
    )
    again = load_refiner(tmp_path / "ours.safetensors")
    assert again.channels == refiner.channels
    assert all(torch.equal(tensor, again.state_dict()[key]) for key, tensor in refiner.state_dict().items())


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_the_architecture_survives(tmp_path: Path, name: str) -> None:
    refiner = Refiner((8, 16), (8, 16), architecture=ARCHITECTURES[name])
    metadata = {"kind": "refiner", "strides": [8, 16], "steps": 3, "architecture": asdict(refiner.architecture)}
    checkpoint.write(tmp_path / "ours.safetensors", refiner.state_dict(), metadata)
    again = load_refiner(tmp_path / "ours.safetensors")
    assert again.architecture == refiner.architecture
    assert all(torch.equal(tensor, again.state_dict()[key]) for key, tensor in refiner.state_dict().items())


def test_the_quality_head_survives(tmp_path: Path) -> None:
    refiner = Refiner((8, 16), (8, 16), steps=2)
    refiner.quality = Quality(2, 5)
    refiner.quality.strength.fill_(0.3)
    metadata = {"kind": "refiner", "strides": [8, 16], "steps": 2}
    checkpoint.write(tmp_path / "ours.safetensors", refiner.state_dict(), metadata)
    again = load_refiner(tmp_path / "ours.safetensors")
    assert again.quality is not None
    assert all(torch.equal(tensor, again.state_dict()[key]) for key, tensor in refiner.state_dict().items())


def test_other_files_are_no_refiner(tmp_path: Path) -> None:
    torch.save({"weight": torch.zeros(1)}, tmp_path / "other.pth")
    with pytest.raises(
        ValueError, match=r"is no refiner: it has no channel_mapper.fpn_lateral tensors; its first are weight"
    ):
        load_refiner(tmp_path / "other.pth")
    checkpoint.write(tmp_path / "detector.safetensors", {"weight": torch.zeros(1)}, {"kind": "detector"})
    with pytest.raises(ValueError, match="holds a detector, expected a refiner"):
        load_refiner(tmp_path / "detector.safetensors")
