"""Results files of any detector, right and wrong."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from refinebox.data.annotations import CocoData
from refinebox.data.tally import Tally
from refinebox.evaluation.results import read_results
from refinebox.evaluation.rows import to_results

DATA = CocoData(
    images=[{"id": image_id, "file_name": f"{image_id}.png", "width": 50, "height": 40} for image_id in (3, 900_100)],
    annotations=[],
    categories={2: "cup", 90: "knife"},
    folder=Path(),
    notes={},
)
GOOD = {"image_id": 3, "category_id": 90, "bbox": [1.5, 2, 10, 20], "score": 0.25}


def write(path: Path, content: Any) -> Path:
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def test_rows_are_in_the_order_of_the_file(tmp_path: Path) -> None:
    entries = [GOOD, {**GOOD, "image_id": 900_100, "category_id": 2, "score": 7, "segmentation": []}]
    rows = read_results(write(tmp_path / "results.json", entries), DATA)
    assert rows.tolist() == [[3, 1.5, 2, 10, 20, 0.25, 90], [900_100, 1.5, 2, 10, 20, 7, 2]]


def test_what_refinebox_writes_is_read_back(tmp_path: Path) -> None:
    rows = np.array([[3, 1.25, 2, 10, 20, 0.5, 90], [900_100, 0, 0, 1, 1, 0.125, 2]])
    assert read_results(write(tmp_path / "results.json", to_results(rows)), DATA).tolist() == rows.tolist()


def test_no_detections_are_no_rows(tmp_path: Path) -> None:
    assert read_results(write(tmp_path / "results.json", []), DATA).shape == (0, 7)


BAD = {
    "no JSON": ("{", r"results\.json is not JSON \(.*\); expected COCO results"),
    "annotations": ({"images": []}, r"results\.json holds a dict; expected COCO results: a list of image_id, .*score"),
    "no entry": ([GOOD, 5], r"results\.json: detection 1 is 5; expected an object with image_id,"),
    "no box": ([{k: v for k, v in GOOD.items() if k != "bbox"}], r"detection 0 has no 'bbox'; expected image_id,"),
    "three numbers": ([{**GOOD, "bbox": [1, 2, 3]}], r"detection 0 has image_id 3, .*bbox \[1, 2, 3\].*; expected num"),
    "no numbers": ([{**GOOD, "score": "high"}], r"detection 0 has .*score 'high'; expected numbers, and a box of x, y"),
    "NaN": (
        '[{"image_id": 3, "category_id": 2, "bbox": [1, 2, NaN, 4], "score": 1}]',
        r"the box or score of detection 0, in image 3, is not finite, or beyond any image; leave out .*\(1 in all\)",
    ),
    "beyond": (
        [{**GOOD, "bbox": [1, 2, 1e300, 4]}],
        r"the box or score of detection 0, in image 3, is not finite, or be",
    ),
    "unknown image": (
        [GOOD, {**GOOD, "image_id": 77}],
        r"results\.json: detections name image ids that the data does not have: 77; is it of these annotations\?",
    ),
    "unknown category": ([{**GOOD, "category_id": 1}], r"category ids that the data does not have: 1; is it of these"),
}


@pytest.mark.parametrize(("content", "expected"), BAD.values(), ids=BAD)
def test_what_is_wrong_with_a_file_is_told(content: Any, expected: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=expected) as caught:
        read_results(write(tmp_path / "results.json", content), DATA)
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no results file at .*none\.json; check the path"):
        read_results(tmp_path / "none.json", DATA)


def spoiled(tmp_path: Path, **fields: Any) -> list[list[float]]:
    return read_results(write(tmp_path / "results.json", [{**GOOD, **fields}]), DATA).tolist()


@pytest.mark.parametrize(
    "fields",
    [
        {"image_id": "3"},
        {"image_id": 3.0},
        {"category_id": "90"},
        {"category_id": "knife"},
        {"bbox": ["1.5", "2", "10", "20"]},
        {"bbox": "[1.5, 2, 10, 20]"},
        {"bbox": [11.5, 22, -10, -20]},
        {"score": "0.25"},
        {"image_id": 99, "file_name": "somewhere/3.png"},
    ],
    ids=str,
)
def test_fields_of_every_type_are_what_they_say(fields: dict[str, Any], tmp_path: Path) -> None:
    assert spoiled(tmp_path, **fields) == [[3, 1.5, 2, 10, 20, 0.25, 90]]


@pytest.mark.parametrize(
    "fields", [{"score": "1_0"}, {"bbox": [1, 2, "1_0", 4]}, {"score": None}, {"score": [1]}], ids=str
)
def test_fields_that_say_nothing_are_an_error(fields: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"detection 0 has .*; expected numbers, and a box of x, y, width and height"):
        spoiled(tmp_path, **fields)


def test_repeated_detections_are_left_out_and_counted(tmp_path: Path) -> None:
    tally = Tally()
    entries = [GOOD, {**GOOD, "score": 0.5}, GOOD, GOOD]
    rows = read_results(write(tmp_path / "results.json", entries), DATA, tally=tally)
    assert rows[:, 5].tolist() == [0.25, 0.5]
    assert "2 repeated detections left out, such as detection 2, in 1 images" in tally.lines("file")[0]


def test_images_without_detections_are_counted(tmp_path: Path) -> None:
    tally = Tally()
    read_results(write(tmp_path / "results.json", [GOOD]), DATA, tally=tally)
    assert tally.lines("file") == ["file: 1 images without detections, such as 900100.png"]


def test_detections_that_coco_does_not_count_are_counted(tmp_path: Path) -> None:
    tally = Tally()
    entries = [{**GOOD, "score": place / 200} for place in range(103)]
    read_results(write(tmp_path / "results.json", entries), DATA, tally=tally)
    assert "3 detections beyond the best 100 of a category in an image" in tally.lines("file")[0]


def test_results_inside_an_object_are_found(tmp_path: Path) -> None:
    path = write(tmp_path / "results.json", {"info": {}, "annotations": [GOOD]})
    assert len(read_results(path, DATA)) == 1


def test_corners_are_refused_or_read_as_is_wished(validation: CocoData, tmp_path: Path) -> None:
    entries = [{**entry, "score": 0.9 - 0.001 * place} for place, entry in enumerate(validation.annotations)]
    good = read_results(write(tmp_path / "good.json", entries), validation)
    wrong = [{**e, "bbox": [*e["bbox"][:2], e["bbox"][0] + e["bbox"][2], e["bbox"][1] + e["bbox"][3]]} for e in entries]
    path = write(tmp_path / "results.json", wrong)
    with pytest.raises(ValueError, match=r"look like corners .*: 100% of the best .*; pass --boxes xyxy to read"):
        read_results(path, validation)
    assert read_results(path, validation, boxes="xyxy").tolist() == good.tolist()
    assert read_results(tmp_path / "good.json", validation, boxes="xyxy").tolist() == good.tolist()
    tally = Tally()
    assert len(read_results(path, validation, boxes="xywh", tally=tally)) == len(good)
    assert any("look like corners" in line for line in tally.lines("file"))
