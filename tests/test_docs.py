"""What the documents show is what runs."""

import importlib
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from PIL import Image

from refinebox.detection.detector import Detector
from refinebox.detection.testing import check_detector
from refinebox.detection.zoo import describe
from refinebox.files import checkpoint
from refinebox.report.batch import COLUMNS

DOCS = Path(__file__).resolve().parents[1] / "docs"


def blocks(document: str, language: str) -> list[str]:
    """The code blocks of a document, in order."""
    return re.findall(rf"```{language}\n(.*?)```", (DOCS / document).read_text(), flags=re.DOTALL)


@pytest.fixture
def deformable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The adapter that docs/adapters.md shows."""
    pytest.importorskip("transformers", reason="transformers is not installed; pip install -e '.[test]'")
    (tmp_path / "deformable.py").write_text(blocks("adapters.md", "python")[0])
    monkeypatch.syspath_prepend(tmp_path)
    return importlib.import_module("deformable")


def test_the_adapter_is_short() -> None:
    assert len(blocks("adapters.md", "python")[0].splitlines()) <= 60


@pytest.mark.filterwarnings("ignore")
def test_the_adapter_keeps_the_contract(deformable: ModuleType) -> None:
    from transformers import DeformableDetrConfig, DeformableDetrForObjectDetection, ResNetConfig

    torch.manual_seed(0)
    backbone = ResNetConfig(
        embedding_size=8,
        hidden_sizes=[8, 16, 24, 32],
        depths=[1, 1, 1, 1],
        layer_type="basic",
        out_features=["stage2", "stage3", "stage4"],
    )
    config = DeformableDetrConfig(
        backbone_config=backbone,
        use_timm_backbone=False,
        use_pretrained_backbone=False,
        backbone=None,
        d_model=32,
        encoder_layers=1,
        decoder_layers=2,
        encoder_ffn_dim=32,
        decoder_ffn_dim=32,
        encoder_attention_heads=4,
        decoder_attention_heads=4,
        num_queries=12,
        num_labels=3,
    )
    detector = deformable.DeformableDetr(DeformableDetrForObjectDetection(config))
    assert detector.strides == (8, 16, 32)
    assert detector.channels == (16, 24, 32)
    check_detector(detector)


@pytest.mark.parametrize("document", ["scale.md", "integrations.md"])
def test_what_other_programs_call_is_python(document: str) -> None:
    for block in blocks(document, "python"):
        compile(block, document, "exec")


def test_the_loop_over_many_images_runs(detector: Detector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loop = blocks("scale.md", "python")[-1]
    checkpoint.write(
        tmp_path / "better.safetensors", detector.tensors(), {"kind": "detector", "detector": describe(detector)}
    )
    monkeypatch.chdir(tmp_path)
    Path("photos").mkdir()
    Image.new("RGB", (64, 48)).save("photos/1.jpg")
    names: dict[str, Any] = {}
    exec(loop, names)
    assert names["found"]["image_id"] == ["photos/1.jpg", "photos/2.jpg"]
    assert names["found"]["error"] == [None, f"{Path('photos/2.jpg')} is not there"]


def test_detections_are_drawn_by_supervision(
    detector: Detector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("supervision", reason="supervision is not installed; pip install -e '.[test]'")
    checkpoint.write(
        tmp_path / "better.safetensors", detector.tensors(), {"kind": "detector", "detector": describe(detector)}
    )
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (64, 48)).save("photo.jpg")
    names: dict[str, Any] = {}
    exec(blocks("integrations.md", "python")[0], names)
    assert len(names["detections"]) == len(names["found"].scores) > 0
    assert names["annotated"].size == (64, 48)
    assert names["annotated"].tobytes() != names["image"].tobytes()


def test_spark_is_told_the_columns() -> None:
    schema = re.search(r"SCHEMA = \((.*?)\)\n", (DOCS / "scale.md").read_text(), flags=re.DOTALL)
    assert schema is not None
    names = [column.split()[0] for column in "".join(re.findall(r'"(.*?)"', schema[1])).split(", ")]
    assert tuple(names) == COLUMNS
