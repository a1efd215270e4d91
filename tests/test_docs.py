"""What the documents show is what runs."""

import importlib
import re
from pathlib import Path
from types import ModuleType

import pytest
import torch

from refinebox.detection.testing import check_detector

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
