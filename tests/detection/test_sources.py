"""What a name that has no row means."""

import sys
from pathlib import Path

import pytest
import torch

from refinebox.detection import sources
from refinebox.detection.detector import Detector, stride_of
from refinebox.detection.extras import library
from refinebox.detection.zoo import describe, is_custom, load_detector, weights_file
from refinebox.files import checkpoint, hub


@pytest.mark.parametrize(
    ("name", "is_one"),
    [
        ("microsoft/table-transformer-detection", True),
        ("PekingU/rtdetr_r50vd", True),
        ("runs/best.safetensors", False),
        ("weights/mine.pth", False),
        ("dab-detr-r50", False),
        ("../org/name", False),
        ("org/name/more", False),
        ("torchvision:fcos", False),
        ("org/name:better.safetensors", True),
        ("org/name:folder/mine.pth", True),
        ("org/name:", False),
        ("org/name.onnx", False),
        ("C:/mine.pth", False),
        ("C:\\folder\\mine.pth", False),
    ],
)
def test_names_of_the_hub(name: str, is_one: bool) -> None:
    assert hub.is_id(name) == is_one


def test_a_path_is_no_name_of_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "org/name").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert not hub.is_id("org/name")


@pytest.mark.parametrize(
    ("config", "is_native"),
    [
        ({}, True),
        ({"model_type": "detr", "backbone": "resnet50"}, True),
        ({"model_type": "dab-detr", "backbone_config": {"model_type": "resnet"}}, True),
        (
            {"model_type": "conditional_detr", "backbone_config": {"model_type": "timm_backbone", "backbone": "r"}},
            False,
        ),
        ({"model_type": "detr", "backbone": "resnet50", "position_embedding_type": "learned"}, False),
        ({"model_type": "rt_detr"}, False),
    ],
)
def test_the_model_type_decides_who_reads_a_folder(config: dict[str, object], is_native: bool) -> None:
    assert sources.native(config) == is_native


def test_a_prefix_is_no_module() -> None:
    assert not is_custom("torchvision:fcos_resnet50_fpn")
    assert is_custom("torchvision.models:something")
    assert weights_file("torchvision:fcos_resnet50_fpn") is None
    assert weights_file("torchvision:fcos_resnet50_fpn", "mine.pth") == Path("mine.pth")


def test_a_file_of_ours_is_named_alone(detector: Detector, tmp_path: Path) -> None:
    path = tmp_path / "detector.safetensors"
    checkpoint.write(path, detector.tensors(), {"kind": "detector", "detector": describe(detector)})
    with pytest.raises(
        ValueError, match=rf"^{path} holds a detector of refinebox, which says what it is; name it alone$"
    ):
        load_detector("torchvision:fcos_resnet50_fpn", path)


def test_a_missing_library_names_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "effdet", None)
    with pytest.raises(
        ValueError, match=r"^effdet is needed for this detector .* run: pip install 'refinebox\[effdet\]'$"
    ):
        library("effdet", "effdet")


@pytest.mark.parametrize(
    ("side", "cells", "stride"), [(128, 32, 4), (300, 38, 8), (300, 10, 32), (560, 40, 14), (101, 4, 32), (256, 16, 16)]
)
def test_the_stride_of_a_map_whose_last_cell_reaches_over_the_border(side: int, cells: int, stride: int) -> None:
    assert stride_of(side, cells) == stride


def test_images_keep_the_memory_format_of_the_adapter(detector: Detector) -> None:
    seen = []
    detect = detector.detect
    detector.detect = lambda images, sizes: seen.append(images) or detect(images, sizes)  # type: ignore[method-assign,func-returns-value]
    detector.memory_format = torch.contiguous_format
    detector(torch.rand(1, 3, 64, 64).contiguous(memory_format=torch.channels_last), torch.tensor([[64, 64]]))
    assert seen[0].is_contiguous()
