"""A detector that is told in words what to look for, through every command."""

import json
import re
from pathlib import Path

import pytest
from invocation import Words, done, run, the_line

from refinebox.data.annotations import CocoData
from refinebox.detection.zoo import load_detector
from refinebox.files import checkpoint

transformers = pytest.importorskip("transformers", reason="an extra: pip install 'refinebox[transformers]'")
from prompted_models import build  # noqa: E402

transformers.utils.logging.disable_progress_bar()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("grounding")
    for part in build("grounding-dino"):
        part.save_pretrained(path)
    return path


def upgraded(folder: Path, shapes_folder: Path, output: Path, *prompt: str) -> tuple[Path, str]:
    """The upgraded file after an epoch, and what the training printed."""
    options: Words = ["--detector", folder, "--data", shapes_folder, *prompt]
    quick: Words = ["--epochs", "1", "--recipe", "published", "--batch-size", "3", "--cache", output / "cache"]
    told = done("train", *options, *quick, "--output", output / "run")
    refiner: Words = ["--refiner", output / "run/best.safetensors", "--force"]
    done("apply", "--detector", folder, *refiner, "--output", output / "better.safetensors")
    return output / "better.safetensors", told


def test_the_datas_categories_are_the_prompt(
    folder: Path, shapes_folder: Path, validation: CocoData, tmp_path: Path
) -> None:
    better, told = upgraded(folder, shapes_folder, tmp_path)
    names = list(validation.categories.values())
    assert told.count(f"{folder.name} looks for the data's categories: {'. '.join(names)}.\n") == 1
    described = checkpoint.read_metadata(better)["detector"]
    assert described["settings"]["prompt"] == names
    assert {entry["id"]: entry["name"] for entry in described["categories"]} == validation.categories
    before = ["oracle-analysis", "--detector", folder, "--data", shapes_folder, "--json", tmp_path / "oracle.json"]
    done(*before)
    done("eval", better, "--data", shapes_folder, "--output", tmp_path / "results", "--json", tmp_path / "eval.json")
    figures = json.loads((tmp_path / "eval.json").read_text())
    assert set(figures) == {"before", "after"}
    done("predict", better, validation.folder, "--output", tmp_path / "predictions")
    rows = json.loads((tmp_path / "predictions/results.json").read_text())
    assert {row["category_id"] for row in rows} <= set(validation.categories)


def test_a_prompt_in_other_words_is_kept_with_the_refiner(
    folder: Path, shapes_folder: Path, validation: CocoData, tmp_path: Path
) -> None:
    names = [*reversed(validation.categories.values()), "cat"]
    better, told = upgraded(folder, shapes_folder, tmp_path, "--prompt", ". ".join(names))
    assert "looks for the data's" not in told
    assert json.loads((tmp_path / "run/config.json").read_text())["prompt"] == names
    assert checkpoint.read_metadata(better)["detector"]["settings"]["prompt"] == names
    assert re.search(rf"^prompt: +{'. '.join(names)}$", done("info", better), re.MULTILINE)
    done("eval", better, "--data", shapes_folder, "--output", tmp_path / "results")
    line = the_line(run("eval", better, "--prompt", "cat. dog.", "--data", shapes_folder))
    assert "was written for the prompt" in line
    assert "for another, name the folder that it was made from" in line


def test_the_doctor_asks_for_it(folder: Path, shapes_folder: Path, validation: CocoData) -> None:
    names = [*reversed(validation.categories.values()), "cat"]
    words: Words = ["doctor", "--detector", folder, "--data", shapes_folder, "--prompt"]
    assert "6 categories of the detector are matched with" in run(*words, ". ".join(names)).stdout
    assert "WRONG" in run(*words, "cat. dog.").stdout


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        (" . ", "the prompt is empty; expected phrases, such as 'cat. traffic light.'"),
        ("cat, dog, cat", "the prompt has 'cat' twice; name every category once"),
    ],
)
def test_a_prompt_that_is_none_is_one_line(prompt: str, message: str, folder: Path, tmp_path: Path) -> None:
    assert the_line(run("predict", folder, tmp_path, "--prompt", prompt)) == f"refinebox: {message}"


def test_a_detector_that_knows_its_categories_takes_no_prompt(tmp_path: Path) -> None:
    line = the_line(run("predict", "dab-detr-shapes", tmp_path, "--prompt", "cat"))
    assert line.endswith(" knows its categories and takes no prompt; leave it out")


def test_phrases_are_one_text_or_several(folder: Path) -> None:
    one = load_detector(str(folder), prompt="traffic light. cat")
    several = load_detector(str(folder), prompt=["traffic light", "cat"])
    assert one.category_names == several.category_names == {0: "traffic light", 1: "cat"}
