"""Detections in COCO's results format: what a file holds, and which images and categories it means."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from refinebox.data import fields, frames, references
from refinebox.data.annotations import CocoData, labelled_size
from refinebox.data.fields import brief
from refinebox.data.frames import Reading
from refinebox.data.images import read_header
from refinebox.data.references import Counting
from refinebox.data.tally import Tally

FIELDS = ("image_id", "category_id", "bbox", "score")
LISTS = ("annotations", "predictions", "detections", "results")  # under which some tools write theirs
FAR = 1e9  # pixels, beyond which no image reaches and areas lose their meaning
LOOKED_AT = 300  # images, to tell what boxes are
Floats = NDArray[np.float64]
Rows = Floats  # [N, 7] image id, x, y, width, height (pixels), score, category id


def read_entries(path: Path) -> list[Any]:
    """The detections of a results file as they stand there: objects that have all that is needed, right or wrong.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not JSON, or no list of such; the message says what it is.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no results file at {path}; check the path")
    try:
        content = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not JSON ({error}); expected COCO results") from error
    if isinstance(content, dict):
        lists = [content[key] for key in LISTS if isinstance(content.get(key), list)]
        scored = [found for found in lists if found and all(isinstance(e, dict) and "score" in e for e in found)]
        content = scored[0] if len(scored) == 1 else content
    if not isinstance(content, list):
        raise ValueError(
            f"{path} holds a {type(content).__name__}; expected COCO results: a list of {', '.join(FIELDS)}"
        )
    for index, entry in enumerate(content):
        if not isinstance(entry, dict):
            raise ValueError(
                f"{path}: detection {index} is {brief(entry)}; expected an object with {', '.join(FIELDS)}"
            )
        lacking = [field for field in FIELDS if field not in entry]
        if lacking == ["image_id"] and entry.get("file_name"):
            lacking = []
        if lacking:
            raise ValueError(f"{path}: detection {index} has no {lacking[0]!r}; expected {', '.join(FIELDS)}")
    return content


def rows(entries: list[Any], data: CocoData, counting: Counting, tally: Tally) -> Rows:
    """The detections as rows, in their order; ids are the data's numbers, and boxes as they stand.

    Raises:
        ValueError: a number is none, or a detection is in no image or of no category of the data; the message says
            which.
    """
    boxes = _numbers([entry["bbox"] for entry in entries], fields.box, 4)
    boxes[np.abs(boxes) > FAR] = np.nan
    scores = _numbers([entry["score"] for entry in entries], fields.number, 1)
    wrong = np.flatnonzero(np.isnan(boxes).any(1) | np.isnan(scores).any(1))
    if len(wrong):
        raise ValueError(_fault(entries, wrong))
    if not entries:
        return np.empty((0, 7))
    images = references.images(entries, data, tally)
    numbers = references.categories(entries, data, counting, tally)
    image = [images[references.reference(entry)] for entry in entries]
    category = [numbers[str(entry["category_id"])] for entry in entries]
    return np.column_stack([image, boxes, scores, category]).astype(np.float64)


def within(entries: list[Any], data: CocoData) -> list[Any]:
    """The detections in images of ``data``; of those in others nothing is said."""
    names, numbers = references.Names(data), {}
    for item in set(map(references.reference, entries)):
        by_id = data.image_ids.number(item[0]) if item[1] is None else None
        numbers[item] = names.number(references.told(item)) if by_id is None else by_id
    return [entry for entry in entries if numbers[references.reference(entry)] is not None]


def _numbers(values: Sequence[Any], read: Any, width: int) -> Floats:
    """``[N, width]`` the numbers of every value, NaN where one means nothing; fast where all are numbers already."""
    try:
        found = np.array(values)
    except ValueError:  # lists of several lengths
        found = np.array(None)
    if found.dtype.kind in "iuf" and found.shape == ((len(values), width) if width > 1 else (len(values),)):
        exact = found.reshape(len(values), width).astype(np.float64)
        return np.where(np.isfinite(exact), exact, np.nan)
    parsed = [read(value) for value in values]
    return np.array([[np.nan] * width if one is None else one for one in parsed], dtype=np.float64).reshape(-1, width)


def _fault(content: list[Any], wrong: "np.ndarray[Any, Any]") -> str:
    entry = content[wrong[0]]
    numbers = [*entry["bbox"], entry["score"]] if isinstance(entry["bbox"], list) else [None]
    if all(isinstance(value, int | float) for value in numbers) and len(numbers) == 5:
        return (
            f"the box or score of detection {wrong[0]}, in image {brief(entry.get('image_id'))}, is not finite, or "
            f"beyond any image; leave out such detections ({len(wrong)} in all)"
        )
    shown = ", ".join(f"{field} {brief(repr(entry.get(field)))}" for field in FIELDS)
    many = f" ({len(wrong)} in all)" if len(wrong) > 1 else ""
    return f"detection {wrong[0]} has {shown}{many}; expected numbers, and a box of x, y, width and height"


def reading(rows: Rows, data: CocoData, boxes: Reading | None = None) -> Reading:
    """What the boxes of ``rows`` ``[N, 7]``, as they stand in the file, are read as: ``boxes``, by default xywh.

    Raises:
        ValueError: nothing is asked for, and they look like something else.
    """
    some = np.isin(rows[:, 0], np.unique(rows[:, 0])[:LOOKED_AT])
    sizes = image_sizes(rows[some], data)
    sized = (sizes > 0).all(1)
    return frames.chosen(rows[some][sized, 1:5], sizes[sized], boxes)


def image_sizes(rows: Rows, data: CocoData) -> Floats:
    """``[N, 2]`` (width, height) in pixels of the image of each row; 0 where the image cannot be read."""
    wanted = rows[:, 0].astype(np.int64).tolist()
    used = set(wanted)
    sizes = {entry["id"]: _size(entry, data.folder) or (0, 0) for entry in data.images if entry["id"] in used}
    return np.array([sizes[image] for image in wanted], dtype=np.float64).reshape(-1, 2)


def _size(entry: dict[str, Any], folder: Path) -> tuple[int, int] | None:
    try:
        return labelled_size(entry) or read_header(folder / entry["file_name"]).upright
    except (OSError, ValueError):
        return None
