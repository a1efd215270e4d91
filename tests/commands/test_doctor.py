"""What is wrong is named, with a way out; what is not, is not."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from invocation import done, run, the_line
from random_boxes import worse
from results_files import detections, write
from typer.testing import Result

from refinebox.data.annotations import CocoData
from refinebox.detection.detector import Detector
from refinebox.detection.zoo import describe
from refinebox.files import checkpoint

Change = Callable[[dict[str, Any]], None]


@pytest.fixture
def folder(shapes_folder: Path, tmp_path: Path) -> Path:
    """A copy of the sound data."""
    return Path(shutil.copytree(shapes_folder, tmp_path / "data"))


@pytest.fixture
def detector_file(detector: Detector, tmp_path: Path) -> Path:
    path = tmp_path / "tiny.safetensors"
    checkpoint.write(path, detector.tensors(), {"kind": "detector", "detector": describe(detector)})
    return path


def change(folder: Path, how: Change, split: str = "val") -> None:
    path = folder / "annotations" / f"instances_{split}.json"
    content = json.loads(path.read_text())
    how(content)
    path.write_text(json.dumps(content))


def wrong(result: Result) -> list[str]:
    """What is called wrong, each in one line; every line fits 80 columns."""
    assert result.exit_code in (0, 1), result.output
    lines = result.stdout.splitlines()
    folded = [line for line in lines if line.startswith("  ")]
    assert all(len(line) <= 80 or max(map(len, line.split())) > 60 for line in folded)  # paths are not broken
    assert (result.exit_code == 1) == any(line.startswith("  WRONG ") for line in lines)
    text = "\n".join(lines).replace("\n        ", " ")
    return [line.removeprefix("  WRONG ") for line in text.splitlines() if line.startswith("  WRONG ")]


def test_a_detector_takes_the_boxes_of_the_results(
    folder: Path, detector_file: Path, validation: CocoData, tmp_path: Path
) -> None:
    """Or says that none are named, and their AP is the file's."""
    data = replace(validation, folder=folder)
    results = write(tmp_path / "results.json", detections(data))
    words = ["doctor", "--data", folder, "--features", detector_file]
    assert wrong(run(*words)) == [
        f"boxes for {folder / 'annotations/instances_val.json'} come from a results file, and none is named; pass "
        "--results FILE"
    ]
    shown = done(*words, "--results", results)
    aps = [line for line in shown.splitlines() if "  AP " in line or " ok    AP " in line]
    assert len(aps) == 2
    assert aps[0] == aps[1]
    assert f"detector: {detector_file}" in shown


def test_sound_data_are_fine(folder: Path) -> None:
    shown = done("doctor", "--data", folder)
    assert "val: " in shown
    assert "train: " in shown
    assert "ok    all of 6 images that were opened can be read" in shown
    assert "ok    no validation image is a training image" in shown
    assert "WRONG" not in shown
    assert shown.splitlines()[-1].startswith("0 wrong, ")


def twice(content: dict[str, Any]) -> None:
    content["annotations"] *= 2


def corners(content: dict[str, Any]) -> None:
    for entry in content["annotations"]:
        x, y, width, height = entry["bbox"]
        entry["bbox"] = [x / 1000, y / 1000, width / 1000, height / 1000]


def of_nothing(content: dict[str, Any]) -> None:
    content["annotations"][0]["image_id"] = 999


def no_object(content: dict[str, Any]) -> None:
    content["annotations"] = []


def no_json_of_coco(content: dict[str, Any]) -> None:
    del content["images"]


@pytest.mark.parametrize(
    ("how", "expected"),
    [
        (twice, "annotations that are there twice left out, such as id 1 → write each once; was a data set"),
        (corners, "instances_val.json: "),
        (of_nothing, "1 annotations of images that are not listed left out, such as image id 999 → list these images"),
        (no_object, "there is no object in these images → annotate some, or name other annotations"),
        (no_json_of_coco, "is not COCO JSON: no list 'images'; expected images, annotations, categories"),
    ],
)
def test_faults_of_annotations_are_named(how: Change, expected: str, folder: Path) -> None:
    change(folder, how)
    [found] = wrong(run("doctor", "--data", folder))
    assert expected in found


def test_faults_of_images_are_named(folder: Path) -> None:
    (folder / "val" / "000001.jpg").write_text("no image")
    (folder / "val" / "000002.jpg").unlink()
    missing, broken = wrong(run("doctor", "--data", folder))
    assert missing.startswith("1 image files missing → copy these files, or take their images out of the annotations")
    assert broken.startswith("1 of 3 images cannot be used: ")
    assert "000001.jpg" in broken


def test_training_images_to_validate_on_are_named(folder: Path) -> None:
    shutil.copy(folder / "annotations" / "instances_train.json", folder / "annotations" / "instances_val.json")
    shutil.rmtree(folder / "val")
    (folder / "train").rename(folder / "images")
    [found] = wrong(run("doctor", "--data", folder))
    assert found.startswith(
        "6 of 6 validation images are training images too, so AP says little about others → take them out"
    )


def test_a_split_that_is_not_there_is_a_note(folder: Path) -> None:
    (folder / "annotations" / "instances_val.json").unlink()
    result = run("doctor", "--data", folder)
    assert wrong(result) == []
    assert "→ train with --val-fraction 0.1, or label some" in result.stdout
    (folder / "annotations" / "instances_train.json").unlink()
    assert the_line(run("doctor", "--data", folder)).startswith(f"refinebox: no val annotations under {folder}: exp")


def test_results_are_looked_at(folder: Path, validation: CocoData, tmp_path: Path) -> None:
    path, rows = tmp_path / "results.json", worse(validation)
    path.write_text(json.dumps(rows))
    named = "--annotations", folder / "annotations" / "instances_val.json", "--results", path
    shown = done("doctor", *named)
    assert "  ok    AP " in shown
    assert "images that were opened" not in shown  # whose folder is not named
    path.write_text(json.dumps([*rows, rows[0]]))
    [found] = wrong(run("doctor", *named))
    assert found.startswith("1 repeated detections left out, such as detection ")
    path.write_text(json.dumps([{**row, "category_id": row["category_id"] - 1} for row in rows]))
    [found] = wrong(run("doctor", *named))
    assert "category ids" in found


def test_a_detector_that_finds_nothing_is_wrong(folder: Path, detector_file: Path) -> None:
    result = run("doctor", "--data", folder, "--detector", detector_file)
    assert any("next to nothing is found → look whether boxes, categories" in found for found in wrong(result))
    assert "ok    6 categories of the detector are matched with those of the data" in result.stdout


def test_an_adapter_of_ones_own_is_held_to_the_contract(
    folder: Path, custom: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = run("doctor", "--data", folder, "--detector", custom).stdout
    assert "  ok    its adapter keeps the contract" in shown

    def fail(_: object) -> None:
        raise AssertionError("boxes are (1, 5), expected (1, 5, 4)")

    monkeypatch.setattr("refinebox.detection.testing.check_detector", fail)
    found = wrong(run("doctor", "--data", folder, "--detector", custom))
    assert found[0].startswith("boxes are (1, 5), expected (1, 5, 4) → put the adapter right; docs/adapters.md says")


def test_categories_that_a_detector_does_not_know_are_named(folder: Path, detector_file: Path) -> None:
    def rename(content: dict[str, Any]) -> None:
        content["categories"][0]["name"] = "unheard of"

    change(folder, rename)
    found = wrong(run("doctor", "--data", folder, "--detector", detector_file))
    assert any(sentence.startswith("the detector does not know 1 unheard of: ") for sentence in found)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], "the val images are not named: pass --data DIR, or both the annotation file and the image folder"),
        (["--data", "nowhere"], "no folder at nowhere; check the path"),
        (["--annotations", "none.json"], "no file at none.json; check the path"),
        (
            ["--annotations", __file__, "--detector", "dab-detr-shapes"],
            "a detector needs images to look at; name their folder with --images",
        ),
    ],
)
def test_what_cannot_be_examined_is_one_line(arguments: list[str], expected: str) -> None:
    assert the_line(run("doctor", *arguments)) == f"refinebox: {expected}"
