"""What is named as a detector and is none that can be used: one line each, which says what to do."""

import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from invocation import run, the_line
from PIL import Image

transformers = pytest.importorskip("transformers", reason="an extra: pip install 'refinebox[transformers]'")
from transformers_models import build  # noqa: E402

transformers.utils.logging.disable_progress_bar()


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    (tmp_path / "photos").mkdir()
    Image.new("RGB", (40, 30)).save(tmp_path / "photos/one.png")
    return tmp_path / "photos"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    build("rt_detr").save_pretrained(tmp_path / "mine")
    transformers.RTDetrImageProcessor(size={"height": 128, "width": 128}).save_pretrained(tmp_path / "mine")
    return tmp_path / "mine"


def changed(file: Path, **settings: Any) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | settings))


def test_a_model_of_another_task(tmp_path: Path, photos: Path) -> None:
    transformers.BertConfig().save_pretrained(tmp_path / "bert")
    assert "a bert is no object detector of transformers, nor one of " in the_line(
        run("predict", tmp_path / "bert", photos)
    )


def test_a_detector_of_text_that_gives_a_map(tmp_path: Path, photos: Path) -> None:
    transformers.PPOCRV5MobileDetForObjectDetection(transformers.PPOCRV5MobileDetConfig()).save_pretrained(
        tmp_path / "ocr"
    )
    transformers.RTDetrImageProcessor(size={"height": 128, "width": 128}).save_pretrained(tmp_path / "ocr")
    line = the_line(run("predict", tmp_path / "ocr", photos))
    assert line.endswith("gives no boxes and logits; expected an object detector")


def test_a_processor_that_crops(folder: Path, photos: Path) -> None:
    changed(folder / "preprocessor_config.json", do_center_crop=True, crop_size={"height": 64, "width": 64})
    line = the_line(run("predict", folder, photos))
    assert (
        "do_center_crop True in preprocessor_config.json is not supported: it is unknown and may change pixels" in line
    )


def test_weights_that_do_not_fit(folder: Path, photos: Path, tmp_path: Path) -> None:
    changed(folder / "config.json", decoder_layers=3)
    assert "the weights do not fit; missing keys: " in the_line(run("predict", folder, photos))
    torch.save({"weight": torch.zeros(1)}, tmp_path / "other.pth")
    line = the_line(
        run("predict", "torchvision:ssdlite320_mobilenet_v3_large", photos, "--weights", tmp_path / "other.pth")
    )
    assert re.search(r"other\.pth\b.*: the checkpoint (lacks|has no)", line), line


@pytest.mark.parametrize(
    ("module", "extra", "named"),
    [
        ("transformers", "transformers", "FOLDER"),
        ("huggingface_hub", "transformers", "organisation/name"),
        ("effdet", "effdet", "effdet:tf_efficientdet_d0"),
        ("libreyolo", "libreyolo", "libreyolo:yolox-n"),
        ("timm", "timm", "--features timm:resnet18 --results rows.json"),
    ],
)
def test_a_missing_extra(
    module: str, extra: str, named: str, folder: Path, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name == module or name.startswith(f"{module}.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, module, None)
    words = [str(folder) if word == "FOLDER" else word for word in named.split()]
    command = ["oracle-analysis", *words, "--data", photos] if "--features" in words else ["predict", *words, photos]
    line = the_line(run(*command))
    assert f"pip install 'refinebox[{extra}]'" in line
