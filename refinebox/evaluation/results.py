"""A results file of any detector, read and checked."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from refinebox.data import fields, frames
from refinebox.data.annotations import LIMIT, CocoData
from refinebox.data.fields import brief
from refinebox.data.frames import Reading
from refinebox.data.tally import Tally
from refinebox.evaluation import references
from refinebox.evaluation.garbage import collection_paused
from refinebox.evaluation.plausibility import FEW, Best, Mistake, mistakes, read_rows
from refinebox.evaluation.references import Counting
from refinebox.evaluation.rows import Bools, Floats, Rows, check_rows, top

FIELDS = ("image_id", "category_id", "bbox", "score")
LISTS = ("annotations", "predictions", "detections", "results")  # under which some tools write theirs


@collection_paused()
def read_results(
    path: Path,
    data: CocoData,
    *,
    categories: Counting = "check",
    boxes: Reading | None = None,
    tally: Tally | None = None,
) -> Rows:
    """``[N, 7]`` rows of image id, x, y, width, height (pixels), score and category id, in the file's order.

    Ids are the data's numbers; detections that are there twice are left out.

    Args:
        path: the file, in COCO's results format; ``file_name`` beside ``image_id`` says which image it is.
        data: the objects.
        categories: how categories are counted; see :func:`refinebox.evaluation.references.categories`.
        boxes: what boxes are that do not fit as COCO's xywh; by default they are an error.
        tally: counts what was left out, guessed or found odd.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is not in COCO's results format, a number in it is not finite, it names an image or
            category that ``data`` does not have, or its boxes or ids look like something else; the message says where.
    """
    tally = Tally() if tally is None else tally
    content = _parse(path)
    try:
        rows = _rows(content, data, categories, tally)
        rows = _framed(rows, data, boxes, tally)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    rows = _once(rows, tally)
    check_rows(data, rows)
    _count(rows, data, tally)
    for mistake in mistakes(rows, data):
        if not _wanted(mistake, categories, boxes):
            raise ValueError(f"{path}: {mistake.sentence}")
        tally.say(mistake.sentence)
    return rows


def _parse(path: Path) -> list[Any]:
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
    return content


def _rows(content: list[Any], data: CocoData, counting: Counting, tally: Tally) -> Rows:
    for index, entry in enumerate(content):
        if not isinstance(entry, dict):
            raise ValueError(f"detection {index} is {brief(entry)}; expected an object with {', '.join(FIELDS)}")
        lacking = [field for field in FIELDS if field not in entry]
        if lacking == ["image_id"] and entry.get("file_name"):
            lacking = []
        if lacking:
            raise ValueError(f"detection {index} has no {lacking[0]!r}; expected {', '.join(FIELDS)}")
    boxes = _numbers([entry["bbox"] for entry in content], fields.box, 4)
    scores = _numbers([entry["score"] for entry in content], fields.number, 1)
    wrong = np.flatnonzero(np.isnan(boxes).any(1) | np.isnan(scores).any(1))
    if len(wrong):
        raise ValueError(_fault(content, wrong))
    if not content:
        return np.empty((0, 7))
    images = references.images(content, data, tally)
    numbers = references.categories(content, data, counting, tally)
    image = [images[references.reference(entry)] for entry in content]
    category = [numbers[str(entry["category_id"])] for entry in content]
    return np.column_stack([image, boxes, scores, category]).astype(np.float64)


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
            f"the box or score of detection {wrong[0]}, in image {brief(entry.get('image_id'))}, is not finite; "
            f"leave out such detections ({len(wrong)} in all)"
        )
    shown = ", ".join(f"{field} {brief(repr(entry.get(field)))}" for field in FIELDS)
    many = f" ({len(wrong)} in all)" if len(wrong) > 1 else ""
    return f"detection {wrong[0]} has {shown}{many}; expected numbers, and a box of x, y, width and height"


def _framed(rows: Rows, data: CocoData, wanted: Reading | None, tally: Tally) -> Rows:
    entries: Mapping[int, Any] = {entry["id"]: entry for entry in data.images}
    sizes = frames.sizes_of(entries, rows[:, 0].astype(np.int64).tolist())
    known: Bools = np.logical_and.reduce(sizes > 0, axis=1)
    reading = _reading(rows, data, sizes, known, wanted)
    if reading != "xywh":
        tally.add(f"boxes of detections read as {frames.MEANINGS[reading]}", "", len(rows))
        rows = rows.copy()
        rows[:, 1:5] = frames.read(rows[:, 1:5], sizes, reading)
    negative = (rows[:, 3:5] < 0).any(1)
    if negative.any():
        first = f"detection {np.flatnonzero(negative)[0]}"
        tally.add("detections with negative sides turned around", first, int(negative.sum()))
        rows = rows.copy()
        rows[negative, 1:5] = frames.upright(rows[negative, 1:5])
    beyond = known & ~frames.inside(rows[:, 1:5], sizes)
    if beyond.any():
        first = f"detection {np.flatnonzero(beyond)[0]}"
        tally.add("detections reach beyond their image, or are smaller than a pixel", first, int(beyond.sum()))
    return rows


def _reading(rows: Rows, data: CocoData, sizes: Floats, known: Bools, wanted: Reading | None) -> Reading:
    """What boxes are, told from the objects they lie on; from the images alone where there are too few."""
    best = Best.of(rows, data)
    if len(best.rows) < FEW:
        return frames.chosen(rows[known, 1:5], sizes[known], wanted)
    if wanted is None:  # which is checked at the end
        return "xywh"
    return wanted if read_rows(wanted, best).fit() >= best.fit() else "xywh"


def _once(rows: Rows, tally: Tally) -> Rows:
    order = np.lexsort(rows.T)  # which keeps equal ones in their order
    repeated = np.sort(order[1:][(np.diff(rows[order], axis=0) == 0).all(axis=1)])
    if len(repeated):
        images = len(np.unique(rows[repeated, 0]))
        tally.add("repeated detections left out", f"detection {repeated[0]}, in {images} images", len(repeated))
    return np.delete(rows, repeated, axis=0)


def _count(rows: Rows, data: CocoData, tally: Tally) -> None:
    """Notes what is sound but may surprise."""
    found = set(rows[:, 0].astype(np.int64).tolist())
    without = [entry["file_name"] for entry in data.images if entry["id"] not in found]
    tally.add("images without detections", without[0] if without else "", len(without))
    beyond = len(rows) - int(top(rows, LIMIT, each_category=True).sum())
    tally.add(f"detections beyond the best {LIMIT} of a category in an image, which COCO does not count", "", beyond)
    if len(rows) and data.annotations and len(np.unique(rows[:, 6])) == 1 < len(data.used):
        tally.say(f"all detections are of one category, though objects are of {len(data.used)}")
    if len(rows) > 1 and len(np.unique(rows[:, 5])) == 1:
        tally.say("all detections have the same score, so that none is better than another; AP means little then")


def _wanted(mistake: Mistake, categories: Counting, boxes: Reading | None) -> bool:
    """Whether somebody said that it is none."""
    return (
        mistake.kind == "fit"
        or (mistake.kind == "boxes" and boxes is not None)
        or (mistake.kind == "categories" and categories != "check")
    )
