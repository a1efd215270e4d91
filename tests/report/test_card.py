"""The model card: what hubs read of it, and what people do."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from refinebox.report.card import Base, card, check_absent

yaml = pytest.importorskip("yaml", reason="comes with the extra transformers")
METRICS = {"AP": 47.46, "AP50": 70.0, "AP75": 50.0, "APs": None, "AR": 60.0}
METADATA: dict[str, Any] = {
    "kind": "upgraded detector",
    "detector": {
        "name": "mine",
        "family": "dab_detr",
        "categories": [{"id": 1, "name": "cat: tabby"}, {"id": 2, "name": None}],
        "choice": None,
    },
    "refiner": {"steps": 2, "settings": {"epochs": 12, "quality": False}},
    "sources": {"detector": {"file": "mine.pth", "sha256": "d" * 64}, "refiner": {"file": "b.st", "sha256": "e" * 64}},
    "before": METRICS,
    "clipped": {**METRICS, "AP": 47.66},
    "after": {**METRICS, "AP": 52.64},
    "choice": {
        "images": 90,
        "refine": True,
        "rescore": False,
        "boxes": {"mean": 5.1, "low": 3.9, "high": 6.3, "resamples": 1000},
        "before": 47.4,
        "after": 52.5,
    },
    "data": {
        "train": {"file": "instances_train.json", "sha256": "a" * 64, "images": 1000, "boxes": 7654},
        "val": {"file": "instances_val.json", "sha256": "b" * 64, "images": 100, "boxes": 700},
    },
}


def parts(text: str) -> tuple[dict[str, Any], str]:
    """What a hub reads, and the rest."""
    _, head, body = text.split("---\n", 2)
    return yaml.safe_load(head), body


def test_hubs_read_the_head() -> None:
    head, _ = parts(card(METADATA, "better.safetensors", "c" * 64, Base("Apache-2.0", hub="org/name")))
    assert head["license"] == "apache-2.0"
    assert head["base_model"] == "org/name"
    assert head["library_name"] == "refinebox"
    assert head["pipeline_tag"] == "object-detection"
    assert head["tags"] == ["object-detection", "refinebox", "dab-detr"]
    [index] = head["model-index"]
    [result] = index["results"]
    assert result["dataset"]["name"] == "instances_val.json"
    values = {metric["name"]: metric["value"] for metric in result["metrics"]}
    assert values == {
        "AP at IoU 0.50 to 0.95, refined": 52.64,
        "AP at IoU 0.50, refined": 70.0,
        "AP at IoU 0.75, refined": 50.0,
    }


def test_the_hubs_own_library_reads_it(tmp_path: Path) -> None:
    hub = pytest.importorskip("huggingface_hub", reason="comes with the extra transformers")
    found = hub.ModelCard(card(METADATA, "better.safetensors", "c" * 64, Base("MIT", hub="org/name"))).data
    assert (found.license, found.base_model, found.pipeline_tag) == ("mit", "org/name", "object-detection")
    assert {result.metric_value for result in found.eval_results} == {52.64, 70.0, 50.0}


def test_people_read_gains_data_and_hashes() -> None:
    _, body = parts(card(METADATA, "better.safetensors", "c" * 64, Base("MIT", source="https://site.example/mine")))
    for text in (
        "What 90 training images that were held out say: AP **47.4 → 52.5 (+5.1, 95 %: +3.9 to +6.3)**.",
        "| AP | 47.5 | 47.7 | 52.6 |",  # no gain on images that chose
        "by which the epoch was chosen",
        "| training | `instances_train.json` | 1,000 | 7,654 | `" + "a" * 64,
        "| this | `better.safetensors` | `" + "c" * 64,
        "| detector | `mine.pth` | `" + "d" * 64,
        'refinebox.load("better.safetensors")',
        "cat: tabby, category 2.",
        "MIT: that of the detector's weights",
        "as published at https://site.example/mine",
        "scores and categories stay",
    ):
        assert text in body
    assert "APs" not in body


def test_what_is_not_known_is_said() -> None:
    bare = {**METADATA, **dict.fromkeys(("before", "clipped", "after", "choice", "data"))}
    head, body = parts(card({**bare, "refiner": {"steps": 3, "settings": None}}, "b.safetensors", "c" * 64, Base()))
    assert head["license"] == "unknown"
    assert not {"model-index", "base_model"} & head.keys()
    for text in (
        "Not known: the refiner's file does not say. `refinebox eval` measures it.",
        "Not known: the refiner's file does not say what it was trained on.",
        "Not known. The file contains the detector's weights",
    ):
        assert text in body
    assert not re.search(r"\bNone\b|nan", body)


def test_a_detector_that_votes_has_a_card_without_figures() -> None:
    voting = {key: METADATA[key] for key in ("detector", "sources")} | {
        "kind": "detector",
        "before": None,
        "after": None,
    }
    _, body = parts(card(voting, "b.safetensors", "c" * 64, Base()))
    assert "Not known: candidates vote, which was not evaluated." in body
    assert "## Data" not in body


def test_scores_that_change_are_told() -> None:
    rescored = {**METADATA, "choice": {**METADATA["choice"], "rescore": True}}
    assert "its scores follow how good the boxes are now" in card(rescored, "b.safetensors", "c" * 64, Base())


@pytest.mark.parametrize(
    ("family", "expected"),
    [
        (
            "dab_detr",
            ['refinebox.load("b.safetensors")', "pip install refinebox\n", "refinebox predict b.safetensors ph"],
        ),
        ("transformers", ["pip install 'refinebox[transformers]'\n"]),
        ("mine:build", ['load("b.safetensors", "mine:build")', "predict mine:build --weights b.safetensors photos/"]),
        ("given", ["refinebox refine b.safetensors --results detections.json --images photos/ --output refined.json"]),
    ],
)
def test_every_family_is_run_in_its_way(family: str, expected: list[str]) -> None:
    text = card({**METADATA, "detector": {**METADATA["detector"], "family": family}}, "b.safetensors", "c" * 64, Base())
    assert [part for part in expected if part not in text] == []
    assert ("```python" in text) == (family != "given")


def test_names_cannot_break_the_head() -> None:
    named = {**METADATA, "detector": {**METADATA["detector"], "name": 'a: "b"\n---\n| c'}}
    text = card(named, "b.safetensors", "c" * 64, Base())
    assert json.dumps('a: "b"\n---\n| c with better boxes') in text.split("\n---\n")[0]


def test_a_readme_is_never_written_over(tmp_path: Path) -> None:
    assert check_absent(tmp_path / "b.safetensors") == tmp_path / "README.md"
    (tmp_path / "README.md").write_text("mine")
    with pytest.raises(FileExistsError, match=r"README\.md is there already; move it away, name another folder, or "):
        check_absent(tmp_path / "b.safetensors")
