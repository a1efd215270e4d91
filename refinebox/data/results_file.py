"""Detections in COCO's results format: what a file holds, and which images of a data set it means."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from refinebox.data.annotations import CocoData

Rows = NDArray[np.float64]  # [N, 7] image id, x, y, width, height (pixels), score, category id

FIELDS = ("image_id", "category_id", "bbox", "score")


def read_entries(path: Path) -> list[dict[str, Any]]:
    """The detections of a results file as they stand there.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no list of objects with :data:`FIELDS`, or a number is none or not finite.
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
        numbers = np.array([_numbers(entry) for entry in content], dtype=np.float64).reshape(-1, 6)
    except (AttributeError, KeyError, TypeError, ValueError, OverflowError) as error:
        raise ValueError(f"{path}: {_first_fault(content)}") from error
    unbounded = np.flatnonzero(~np.isfinite(numbers).all(1))
    if len(unbounded):
        image_id = content[unbounded[0]].get("image_id")
        raise ValueError(
            f"{path}: the box or score of detection {unbounded[0]}, in image {image_id}, is not finite; "
            f"leave out such detections ({len(unbounded)} in all)"
        )
    return content


def image_ids(entries: Sequence[Mapping[str, Any]], data: CocoData) -> list[int | None]:
    """The data's image id of every detection, None for an image that the data does not have.

    An id is the data's own, or, where the file names its images otherwise, the name of the file, with its ending and
    folders or without; ``file_name`` says the same and comes first.
    """
    known = {entry["id"] for entry in data.images}
    if all("file_name" not in entry and entry["image_id"] in known for entry in entries):
        return [entry["image_id"] for entry in entries]
    named: dict[str, set[int]] = {}
    for image in data.images:
        path = PurePath(str(image["file_name"]))
        for name in {path.as_posix(), path.name, path.stem}:
            named.setdefault(name, set()).add(image["id"])
    found: dict[tuple[Any, Any], int | None] = {}
    for reference in {(entry.get("file_name"), entry.get("image_id")) for entry in entries}:
        found[reference] = _image(*reference, known, named)
    return [found[entry.get("file_name"), entry.get("image_id")] for entry in entries]


def named(entry: Mapping[str, Any]) -> str:
    """How a detection names its image."""
    return str(entry.get("file_name", entry.get("image_id")))


def rows(entries: Sequence[Mapping[str, Any]], images: Sequence[int]) -> Rows:
    """``[N, 7]`` image id, x, y, width, height (pixels), score and category id of each detection, in their order."""
    table = np.array([_numbers(entry) for entry in entries], dtype=np.float64).reshape(-1, 6)
    return np.column_stack([np.array(images, dtype=np.float64), table])


def _image(name: Any, image_id: Any, known: set[int], named: Mapping[str, set[int]]) -> int | None:
    for said in (name, image_id):
        if said is None or said in known:
            continue
        path = PurePath(str(said))
        for text in (path.as_posix(), path.name, path.stem):
            if len(named.get(text, ())) == 1:
                return next(iter(named[text]))
    return int(image_id) if image_id in known else None


def _numbers(entry: Mapping[str, Any]) -> tuple[Any, ...]:
    if not isinstance(entry.get("file_name", entry.get("image_id")), int | float | str):
        raise TypeError("no image is named")
    x, y, width, height = entry["bbox"]
    return x, y, width, height, entry["score"], entry["category_id"]


def _first_fault(content: list[Any]) -> str:
    for index, entry in enumerate(content):
        try:
            np.array(_numbers(entry), dtype=np.float64)
        except (AttributeError, KeyError, TypeError, ValueError, OverflowError):
            return f"detection {index} {_reason(entry)}"
    raise AssertionError("every detection can be read alone")


def _reason(entry: Any) -> str:
    if not isinstance(entry, dict):
        return f"is {entry!r}; expected an object with {', '.join(FIELDS)}"
    lacking = [field for field in FIELDS if field not in entry and not (field == "image_id" and "file_name" in entry)]
    if lacking:
        return f"has no {lacking[0]!r}; expected {', '.join(FIELDS)}"
    shown = ", ".join(f"{field} {entry.get(field)!r}" for field in FIELDS)
    return f"has {shown}; expected numbers, and a box of x, y, width and height"
