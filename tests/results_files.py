"""Results files of generated images: what a detector might have found in them."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from refinebox.data.annotations import CocoData


def detections(data: CocoData, seed: int = 0, **fields: Any) -> list[dict[str, Any]]:
    """A shifted box of a random score for every object, one that a second label shares, and a stray one an image."""
    random = np.random.default_rng(seed)
    entries: list[dict[str, Any]] = []
    for annotation in data.annotations:
        x, y, width, height = annotation["bbox"]
        moved = [x + 2, y - 1.25, width + 3, height + 1.5]
        category = annotation["category_id"]
        for label, factor in ((category, 1.0), (category % 6 + 1, 0.5)):
            score = round(float(random.uniform(0.05, 0.95)) * factor, 4)
            entries.append({"image_id": annotation["image_id"], "category_id": label, "bbox": moved, "score": score})
    for image in data.images:
        entries.append({"image_id": image["id"], "category_id": 1, "bbox": [5.5, 6, 30, 40.125], "score": 0.05})
    return [{**entry, **fields} for entry in entries]


def write(path: Path, entries: list[dict[str, Any]]) -> Path:
    path.write_text(json.dumps(entries))
    return path
