"""Results files of any detector, right and wrong."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from refinebox.data.annotations import CocoData
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
        r"the box or score of detection 0, in image 3, is not finite; leave out such detections \(1 in all\)",
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
