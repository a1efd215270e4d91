"""A COCO results file of any detector, read and checked."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from refinebox.data.annotations import CocoData
from refinebox.evaluation.garbage import collection_paused
from refinebox.evaluation.rows import Rows, check_rows

FIELDS = ("image_id", "category_id", "bbox", "score")


@collection_paused()
def read_results(path: Path, data: CocoData) -> Rows:
    """``[N, 7]`` rows of image id, x, y, width, height (pixels), score and category id, in the file's order.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is not in COCO's results format, a number in it is not finite, or it names an image or
            category that ``data`` does not have; the message says where.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no results file at {path}; check the path")
    try:
        content = json.loads(path.read_bytes())
    except ValueError as error:
        raise ValueError(f"{path} is not JSON ({error}); expected COCO results") from error
    if not isinstance(content, list):
        raise ValueError(
            f"{path} holds a {type(content).__name__}; expected COCO results: a list of {', '.join(FIELDS)}"
        )
    try:
        rows = np.array([_row(entry) for entry in content], dtype=np.float64).reshape(-1, 7)
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise ValueError(f"{path}: {_first_fault(content)}") from error
    unbounded = np.flatnonzero(~np.isfinite(rows).all(1))
    if len(unbounded):
        image_id = content[unbounded[0]]["image_id"]
        raise ValueError(
            f"{path}: the box or score of detection {unbounded[0]}, in image {image_id}, is not finite; "
            f"leave out such detections ({len(unbounded)} in all)"
        )
    try:
        check_rows(data, rows)
    except ValueError as error:
        raise ValueError(f"{path}: {error}; is it of these annotations?") from error
    return rows


def _row(entry: Any) -> tuple[Any, ...]:
    x, y, width, height = entry["bbox"]
    return entry["image_id"], x, y, width, height, entry["score"], entry["category_id"]


def _first_fault(content: list[Any]) -> str:
    for index, entry in enumerate(content):
        try:
            np.array(_row(entry), dtype=np.float64)
        except (KeyError, TypeError, ValueError, OverflowError):
            return f"detection {index} {_reason(entry)}"
    raise AssertionError("every detection can be read alone")


def _reason(entry: Any) -> str:
    if not isinstance(entry, dict):
        return f"is {entry!r}; expected an object with {', '.join(FIELDS)}"
    lacking = [field for field in FIELDS if field not in entry]
    if lacking:
        return f"has no {lacking[0]!r}; expected {', '.join(FIELDS)}"
    shown = ", ".join(f"{field} {entry[field]!r}" for field in FIELDS)
    return f"has {shown}; expected numbers, and a box of x, y, width and height"
