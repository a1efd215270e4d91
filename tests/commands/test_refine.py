"""A results file through every command: train, apply, refine, eval, predict, oracle-analysis."""

import json
import re
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from invocation import Words, done, run, the_line
from results_files import detections, write

import refinebox
from refinebox.data import frames
from refinebox.data.annotations import CocoData
from refinebox.detection.detector import Detector
from refinebox.detection.zoo import describe, load_given
from refinebox.files import checkpoint
from refinebox.refinement.export import export
from refinebox.refinement.refiner import Refiner
from refinebox.training.run import write_refiner
from refinebox.training.settings import Settings


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def features(detector: Detector, tmp_path: Path) -> Path:
    path = tmp_path / "detector.safetensors"
    checkpoint.write(path, detector.tensors(), {"kind": "detector", "detector": describe(detector)})
    return path


@pytest.fixture
def results(training: CocoData, validation: CocoData, tmp_path: Path) -> dict[str, Path]:
    return {
        "train": write(tmp_path / "train.json", detections(training)),
        "val": write(tmp_path / "val.json", detections(validation)),
    }


def upgrade(features: Path, validation: CocoData, output: Path, *, still: bool = False) -> Path:
    """An upgraded file of a refiner that was never trained; one that is ``still`` moves nothing."""
    detector = load_given(str(features))
    torch.manual_seed(5)
    refiner = Refiner(detector.channels, detector.strides)
    if still:
        torch.nn.init.zeros_(refiner.bboxes_refiner.bboxes_deltas.weight)
        torch.nn.init.zeros_(refiner.bboxes_refiner.bboxes_deltas.bias)
    categories = [{"id": number, "name": name} for number, name in validation.categories.items()]
    history: dict[str, Any] = {"epoch": 1, "before": None, "after": None, "categories": categories}
    best = output.with_name("best.safetensors")
    write_refiner(best, refiner, detector, asdict(Settings()), history)
    done("apply", "--features", features, "--refiner", best, "--output", output)
    return output


@pytest.fixture
def upgraded(features: Path, validation: CocoData, tmp_path: Path) -> Path:
    return upgrade(features, validation, tmp_path / "better.safetensors")


@pytest.fixture
def still(features: Path, validation: CocoData, tmp_path: Path) -> Path:
    return upgrade(features, validation, tmp_path / "still.safetensors", still=True)


def test_train_apply_refine_eval(
    features: Path, results: dict[str, Path], shapes_folder: Path, tmp_path: Path, validation: CocoData
) -> None:
    boxes: Words = ["--results", results["train"], "--val-results", results["val"], "--features", features]
    options: Words = ["--data", shapes_folder, "--output", tmp_path / "run", "--epochs", "1", "--batch-size", "3"]
    done("train", *boxes, *options)
    refiner: Words = ["--features", features, "--refiner", tmp_path / "run/best.safetensors", "--force"]
    done("apply", *refiner, "--output", "better.safetensors")
    named: Words = ["--annotations", str(validation.source)]
    done(
        "refine",
        "better.safetensors",
        "--results",
        results["val"],
        "--images",
        validation.folder,
        "--output",
        "r.json",
        *named,
    )
    done("eval", "better.safetensors", "--results", results["val"], "--data", shapes_folder, "--json", "e.json")
    live = json.loads(Path("e.json").read_text())
    for stage, path in (("before", results["val"]), ("after", Path("r.json"))):
        done("oracle-analysis", "--results", path, "--data", shapes_folder, "--json", "o.json")
        alone = json.loads(Path("o.json").read_text())["swaps"]["none"]
        assert live[stage]["AP"] == pytest.approx(alone["AP"], abs=0.02), stage
    recorded = json.loads((tmp_path / "run/metrics.jsonl").read_text().splitlines()[-1])
    assert recorded["before"] == pytest.approx(live["before"])
    assert recorded["before"]["AP"] > 5


def test_all_but_boxes_stays_as_it_is(upgraded: Path, validation: CocoData) -> None:
    entries = detections(validation, segmentation=[[1, 2]], source="elsewhere")
    entries = [{**entry, "image_id": f"{entry['image_id'] - 1:06d}"} for entry in entries]  # the stems of the files
    write(Path("in.json"), entries)
    shown = done("refine", upgraded, "--results", "in.json", "--images", validation.folder, "--output", "out.json")
    refined = json.loads(Path("out.json").read_text())
    assert len(refined) == len(entries)
    assert f"wrote out.json: {len(entries)} detections, of which {len(entries)} moved" in shown
    for old, new in zip(entries, refined, strict=True):
        assert {**old, "bbox": None} == {**new, "bbox": None}
        assert old["bbox"] != new["bbox"]


@pytest.mark.parametrize(
    ("reading", "pixels"), [("xyxy", 0.002), ("cxcywh", 0.002), ("xyxyn", 0.002), ("cxcywhn", 0.002)]
)
def test_boxes_of_other_forms_are_named_and_come_back_as_they_came(
    reading: frames.Reading, pixels: float, upgraded: Path, validation: CocoData
) -> None:
    entries = [{**entry, "image_id": f"{entry['image_id'] - 1:06d}"} for entry in detections(validation)]
    plain = np.array([entry["bbox"] for entry in entries], dtype=np.float64)
    names = {Path(image["file_name"]).stem: image for image in validation.images}
    sides = [names[entry["image_id"]] for entry in entries]
    sizes = np.array([(side["width"], side["height"]) for side in sides], dtype=np.float64)
    others = frames.written(plain, sizes, reading)
    assert np.allclose(frames.read(others, sizes, reading), plain)
    rows = [{**entry, "bbox": box} for entry, box in zip(entries, others.tolist(), strict=True)]
    write(Path("plain.json"), entries)
    write(Path("other.json"), rows)
    words: Words = ["refine", upgraded, "--images", validation.folder]
    done(*words, "--results", "plain.json", "--output", "refined.json")
    line = the_line(run(*words, "--results", "other.json", "--output", "out.json"))
    assert f"pass --boxes {reading} to read them so, or --boxes xywh to take them as they are" in line
    shown = done(*words, "--results", "other.json", "--output", "out.json", "--boxes", reading)
    assert f"boxes of detections read as {frames.MEANINGS[reading]}" in shown
    wanted, found = (
        np.array([entry["bbox"] for entry in json.loads(Path(name).read_text())])
        for name in ("refined.json", "out.json")
    )
    assert np.abs(wanted - plain).max() > 1
    assert np.abs(frames.read(found, sizes, reading) - wanted).max() < pixels


def test_a_refiner_that_moves_nothing_gives_the_same_file(
    still: Path, validation: CocoData, results: dict[str, Path], shapes_folder: Path
) -> None:
    named = [
        {**entry, "file_name": validation.images[entry["image_id"] - 1]["file_name"]}
        for entry in json.loads(results["val"].read_text())
    ]
    write(Path("in.json"), named)
    shown = done("refine", still, "--results", "in.json", "--images", validation.folder, "--output", "out.json")
    assert "of which 0 moved" in shown
    assert json.loads(Path("out.json").read_text()) == named
    done("eval", still, "--results", results["val"], "--data", shapes_folder, "--json", "figures.json")
    figures = json.loads(Path("figures.json").read_text())
    assert figures["before"] == figures["after"]


def test_boxes_beyond_the_best_stay_unrefined(upgraded: Path, validation: CocoData) -> None:
    entries = [
        {"image_id": "000000", "category_id": 1, "bbox": [10 + place / 10, 20, 50, 40], "score": 0.9 - place / 1000}
        for place in range(130)
    ]
    write(Path("in.json"), [{**entries[0], "image_id": "000001", "score": 0.1}, *entries[::-1]])
    done("refine", upgraded, "--results", "in.json", "--images", validation.folder, "--output", "out.json")
    refined = json.loads(Path("out.json").read_text())[:0:-1]
    moved = [old["bbox"] != new["bbox"] for old, new in zip(entries, refined, strict=True)]
    assert moved == [True] * 100 + [False] * 30


def test_the_file_is_refined_as_its_images_are_predicted(upgraded: Path, validation: CocoData) -> None:
    entries = [
        {**entry, "file_name": validation.images[entry["image_id"] - 1]["file_name"]}
        for entry in detections(validation)
        if entry["image_id"] != 3
    ]
    write(Path("in.json"), entries)
    done("refine", upgraded, "--results", "in.json", "--images", validation.folder, "--output", "out.json")
    result = run("predict", upgraded, validation.folder, "--results", "in.json", "--output", "pictures")
    assert (result.exit_code, result.stderr) == (0, "1 images have no boxes in in.json\n")
    refined = json.loads(Path("out.json").read_text())
    predicted = json.loads(Path("pictures/results.json").read_text())
    assert sorted(map(shown, predicted)) == sorted(map(shown, refined))


def shown(row: dict[str, Any]) -> tuple[Any, ...]:
    """A detection, but for rounding and the image's folder."""
    return Path(row["file_name"]).name, row["category_id"], round(row["score"], 4), *map(round, row["bbox"])


def test_an_image_that_cannot_be_read_keeps_its_detections(
    upgraded: Path, spoiled_folder: Path, validation: CocoData
) -> None:
    entries = [{**entry, "image_id": f"{entry['image_id'] - 1:06d}"} for entry in detections(validation)]
    write(Path("in.json"), entries)
    result = run("refine", upgraded, "--results", "in.json", "--images", spoiled_folder / "val", "--output", "out.json")
    assert result.exit_code == 0
    assert "kept as they are: detections in an image that could not be read: " in result.stderr
    refined = json.loads(Path("out.json").read_text())
    for old, new in zip(entries, refined, strict=True):
        assert (old == new) == (old["image_id"] == "000001")


def test_a_live_analysis_starts_from_the_refined_boxes(
    still: Path, results: dict[str, Path], shapes_folder: Path
) -> None:
    shown = done("oracle-analysis", "--detector", still, "--results", results["val"], "--data", shapes_folder)
    assert "Matching: Hungarian" in shown
    assert "Refined: AP " in shown


def test_what_is_odd_about_the_detections_is_told(upgraded: Path, validation: CocoData, shapes_folder: Path) -> None:
    entries = [entry for entry in detections(validation) if entry["image_id"] != 2 and entry["score"] > 0.3]
    write(Path("in.json"), entries)
    result = run("eval", upgraded, "--results", "in.json", "--data", shapes_folder)
    assert result.exit_code == 0
    assert f"in.json: {len(entries)} detections\n" in result.stdout
    assert "in.json: 1 images without detections, such as 000001.jpg" in result.stdout
    assert result.stderr.startswith("in.json: the lowest score is 0.3")
    assert len(result.stderr.splitlines()) == 1


REFINE = "refine {upgraded} --images {images} --output out.json --results "
BAD = {
    "no features": (
        "train --results {val} --val-results {val} --data {data}",
        "name a detector with --detector, or what gives features to the boxes of a results file with --features",
    ),
    "one split": ("train --results {val} --features {features} --data {data}", "pass --results FILE and --val-results"),
    "two detectors": (
        "train --detector {features} --features {features} --results {val} --val-results {val} --data {data}",
        "has features of its own; leave out --features",
    ),
    "finds its own": (
        "train --detector {features} --results {val} --val-results {val} --data {data}",
        "tiny finds its own boxes; leave out the results file",
    ),
    "no results": ("eval {upgraded} --data {data}", "come from a results file, and none is named; pass --results FILE"),
    "no results, predict": ("predict {upgraded} {images}", "come from a results file, and none is named; pass --resul"),
    "other data": ("eval {upgraded} --results {other} --data {data}", "name image ids that the data does not have: 77"),
    "other images": (REFINE + "{other}", "1 of 1 detections are in images that .*val does not have, such as 77;"),
    "other images, predict": ("predict {upgraded} {images} --results {other}", "has no detection in any of these 4 im"),
    "unknown label": (REFINE + "{label}", "detections name category ids that the data does not have: 9"),
    "fractions": (REFINE + "{fractions}", "boxes look like fractions of the image .*; pass --boxes xywhn to read them"),
    "fractions, predict": (
        "predict {upgraded} {images} --results {fractions}",
        "boxes look like fractions of the image .*; expected x, y, width and height in pixels: write them so, or let",
    ),
    "negative sides": (
        REFINE + "{negative}",
        r"1 boxes have negative sides, such as \[31, 2, -30, 40\]; write x and y",
    ),
    "negative sides, predict": (
        "predict {upgraded} {images} --results {negative}",
        "some boxes have negative sides; wr",
    ),
    "into itself": (
        "refine {upgraded} --images {images} --output {val} --results {val}",
        "is a file that is read, and would be lost; name another to write",
    ),
    "percentages": (REFINE + "{percent}", r"the score of a detection is 90; expected scores between 0 and 1 \(1 are"),
    "no refiner to speak of": (
        "refine {features} --images {images} --output out.json --results {val}",
        "tiny finds its own boxes; leave out the results file",
    ),
    "published": ("apply --features {features} --refiner published --output x", "published for detectors alone"),
    "missing file": (REFINE + "none.json", "no results file at none.json; check the path"),
    "missing folder": (
        "refine {upgraded} --images none --output out.json --results {val}",
        "no folder at none; check the path",
    ),
}


@pytest.mark.parametrize(("command", "expected"), BAD.values(), ids=BAD)
def test_what_a_user_can_put_right_is_one_line(
    command: str,
    expected: str,
    upgraded: Path,
    features: Path,
    results: dict[str, Path],
    shapes_folder: Path,
    tmp_path: Path,
) -> None:
    row = {"image_id": "000001", "category_id": 1, "bbox": [1, 2, 30, 40], "score": 0.9}
    files = {
        "other": {**row, "image_id": 77},
        "label": {**row, "category_id": 9},
        "percent": {**row, "score": 90},
        "negative": {**row, "bbox": [31, 2, -30, 40]},
    }
    fractions = [{**row, "bbox": [0.1, 0.1, place / 20, 0.3]} for place in range(1, 15)]
    places: dict[str, Any] = {"fractions": write(tmp_path / "fractions.json", fractions)}
    places |= {name: write(tmp_path / f"{name}.json", [entry]) for name, entry in files.items()}
    places |= {"upgraded": upgraded, "features": features, "data": shapes_folder, "images": shapes_folder / "val"}
    result = run(*(word.format(**places, **results) for word in command.split()))
    assert result.exit_code == 2
    line = result.stderr.splitlines()[-1]
    assert re.search(expected, line), line
    assert not Path("out.json").exists()


def test_the_upgraded_file_needs_nothing_else(upgraded: Path, validation: CocoData, results: dict[str, Path]) -> None:
    model = refinebox.load(upgraded)
    assert model.category_names == validation.categories
    entries = [
        {**entry, "image_id": validation.images[entry["image_id"] - 1]["file_name"]} for entry in detections(validation)
    ]
    model.take(write(results["val"], entries))
    photo = validation.folder / validation.images[0]["file_name"]
    [found] = model.predict([photo])
    assert len(found.boxes) == sum(entry["image_id"] == photo.name for entry in entries)


def test_features_and_boxes_are_named_in_python(features: Path, results: dict[str, Path], validation: CocoData) -> None:
    entries = [{**entry, "image_id": f"photo {entry['image_id']}"} for entry in detections(validation)]
    model = refinebox.load_detector(f"results:{write(results['val'], entries)}", features=str(features))
    with pytest.raises(ValueError, match="has no detection in any of these 1 images"):
        model.predict([validation.folder / "000001.jpg"])
    with pytest.raises(ValueError, match="a results file has boxes and no features; name what gives them"):
        refinebox.load_detector(f"results:{results['val']}")
    with pytest.raises(ValueError, match="has features of its own; leave out torchvision:resnet50"):
        refinebox.load_detector("dab-detr-r50", features="torchvision:resnet50")
    with pytest.raises(FileNotFoundError, match=r"no results file at none\.json"):
        refinebox.load_detector("results:none.json", features=str(features))


def test_what_takes_boxes_is_not_exported_and_its_cost_is_told(upgraded: Path, features: Path) -> None:
    model = refinebox.load(upgraded)
    with pytest.raises(ValueError, match="cannot be exported: it takes its boxes from a results file"):
        export(model, Path("model.onnx"))
    arguments: Words = ["--features", features, "--refiner", upgraded.with_name("best.safetensors")]
    assert "cost: refinement adds " in done("apply", *arguments, "--output", "again.safetensors")
