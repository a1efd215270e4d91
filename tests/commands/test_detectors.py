"""What `refinebox detectors` shows: a table that fits 80 columns, and one detector whole."""

import re
import sys
from pathlib import Path

import pytest
from invocation import done, run, the_line

from refinebox.detection.published import DETECTORS, place
from refinebox.detection.sources import SOURCES
from refinebox.files.download import home


def row(shown: str, name: str) -> list[str]:
    """The cells of one printed row."""
    (line,) = (line for line in shown.splitlines() if line.split()[:1] == [name])
    return re.split(r"\s\s+", line.strip())


def test_the_table_fits_80_columns() -> None:
    shown = done("detectors")
    assert max(map(len, shown.splitlines())) <= 80
    assert f"Downloads are kept in {home()}; REFINEBOX_HOME names another folder." in " ".join(shown.split())


def test_every_detector_has_a_row() -> None:
    shown = done("detectors")
    for name, entry in DETECTORS.items():
        numbers = ["–" if value is None else f"{value:.1f}" for value in (entry.ap, entry.refined_ap)]
        assert row(shown, name)[:3] == [name, *numbers]
        assert place(name, entry) in row(shown, name)[-1]


@pytest.mark.parametrize("name", DETECTORS)
def test_one_detector_is_shown_whole(name: str) -> None:
    shown, entry = done("detectors", name), DETECTORS[name]
    assert shown.splitlines()[0].split() == ["name:", name]
    texts = entry.family, entry.backbone, entry.layout, entry.licence, entry.source, place(name, entry)
    assert all(f" {text}\n" in shown for text in texts)
    assert entry.sha256 in shown


def test_a_mistyped_name_gets_the_nearest() -> None:
    line = the_line(run("detectors", "dab-detr-r5"))
    assert "unknown detector 'dab-detr-r5'; near it are dab-detr-r50" in line


def test_other_sources_are_named_with_what_brings_them() -> None:
    shown = done("detectors")
    for named, (source, extra) in SOURCES.items():
        (line,) = (line for line in shown.splitlines() if line.startswith(f" {named} "))
        assert source.split(" ")[0] in line
        assert line.split()[-1] == (extra or "–")


def test_a_librarys_names_are_listed() -> None:
    assert "torchvision:ssdlite320_mobilenet_v3_large" in done("detectors", "torchvision").splitlines()


def test_a_librarys_model_is_described() -> None:
    shown = done("detectors", "torchvision:ssd300_vgg16")
    assert "COCO AP:     25.1\n" in shown
    assert "input:       300 x 300\n" in shown
    assert "https://download.pytorch.org/models/ssd300_vgg16_coco" in shown


def test_a_folder_of_transformers_is_described(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers", reason="an extra: pip install 'refinebox[transformers]'")
    names = dict(enumerate("abcdefgh"))
    transformers.RTDetrConfig(id2label=names).save_pretrained(tmp_path)
    transformers.RTDetrImageProcessor().save_pretrained(tmp_path)
    shown = done("detectors", tmp_path)
    assert "family:      rt_detr\n" in shown
    assert "categories:  8: a, b, c, d, e, f, …\n" in shown
    assert "input:       640 x 640, stretch\n" in shown
    assert "built by:    transformers\n" in shown
    transformers.BertConfig().save_pretrained(tmp_path)
    assert "holds no detector of transformers: a bert is no object detector" in the_line(run("detectors", tmp_path))
    assert "microsoft/some is on the Hugging Face hub; download it" in the_line(run("detectors", "microsoft/some"))


def test_a_model_of_another_task_has_no_row() -> None:
    assert "torchvision has no detection model 'resnet50'; known: " in the_line(
        run("detectors", "torchvision:resnet50")
    )


@pytest.mark.parametrize("source", ["effdet", "libreyolo"])
def test_a_missing_extra_is_named(source: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, source, None)
    line = the_line(run("detectors", f"{source}:anything"))
    assert line.endswith(f"run: pip install 'refinebox[{source}]'")
