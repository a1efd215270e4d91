"""The benchmark of cached epochs, on a tiny detector; what it measures is not judged here."""

from pathlib import Path
from types import ModuleType

import pytest
import torch
from refinebox.adapters.parts.sizes import Sizes


def test_every_level_is_measured(script: ModuleType, tiny: Sizes, tmp_path: Path) -> None:
    figures = script.epochs(script.anchored(tiny), tmp_path, 2, (64, 96), repeats=1)
    assert all(figure > 0 for figure in figures.values())
    ratio = figures["epoch of 2 images, cached boxes and cells, CPU s"] / figures["epoch of 2 images, no cache, CPU s"]
    assert figures["cached_epoch_ratio"] == pytest.approx(ratio)
    assert len(list((tmp_path / "boxes").rglob("*.safetensors"))) == 2


def test_an_anchored_detector_predicts_its_anchors(script: ModuleType, tiny: Sizes) -> None:
    images, sizes = torch.randn(1, 3, 64, 96), torch.tensor([[64, 96]])
    output = script.anchored(tiny)(images, sizes)
    expected = script.random_boxes(tiny.queries, torch.Generator().manual_seed(0))
    torch.testing.assert_close(output.boxes[0], expected, atol=1e-5, rtol=0)
