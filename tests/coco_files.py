"""A small annotation file, to be spoiled in every way, beside two noisy images."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from refinebox.data.annotations import CocoData
from refinebox.data.annotations import read as read_file
from refinebox.data.batches import Sample, Target
from refinebox.data.dataset import CocoDataset
from refinebox.data.input_format import InputFormat

SIZES = ((40, 60), (60, 40))  # height, width
CATEGORIES = [{"id": 3, "name": "cat"}, {"id": 7, "name": "dog"}]
FORM = InputFormat(short_side=32, long_side=100)
COLUMNS = {3: 0, 7: 1}


def noise(height: int, width: int) -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def write_images(folder: Path) -> None:
    for number, (height, width) in enumerate(SIZES, start=1):
        pixels = np.random.default_rng(number).integers(0, 256, (height, width, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")


def image_entries() -> list[dict[str, Any]]:
    return [
        {"id": number, "file_name": f"{number}.png", "height": height, "width": width}
        for number, (height, width) in enumerate(SIZES, start=1)
    ]


def annotation(number: int = 1, **fields: Any) -> dict[str, Any]:
    plain = {"id": number, "image_id": 1, "category_id": 3, "bbox": [6, 4, 30, 20], "area": 600, "iscrowd": 0}
    return {**plain, **fields}


def without(entry: dict[str, Any], *fields: str) -> dict[str, Any]:
    return {key: value for key, value in entry.items() if key not in fields}


def written(folder: Path, **lists: Any) -> Path:
    content = {"images": image_entries(), "annotations": [annotation()], "categories": CATEGORIES, **lists}
    (folder / "coco.json").write_text(json.dumps(content))
    return folder / "coco.json"


def read(folder: Path, **lists: Any) -> CocoData:
    return read_file(written(folder, **lists), folder)


def dataset(found: CocoData, **options: Any) -> CocoDataset:
    return CocoDataset(found, COLUMNS, **{"form": FORM, **options})


def assert_same(sample: Sample, other: Sample) -> None:
    torch.testing.assert_close(sample[0], other[0], rtol=0, atol=0)
    assert_same_target(sample[1], other[1])
    assert sample[2:] == other[2:]


def assert_same_target(target: Target, other: Target) -> None:
    torch.testing.assert_close(target.boxes, other.boxes, rtol=0, atol=0)
    torch.testing.assert_close(target.columns, other.columns, rtol=0, atol=0)
