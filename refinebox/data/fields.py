"""Single fields of other people's JSON: what a value means, or None where it means nothing.

Table programs, labelling tools and converters write numbers as text, whole numbers as 1.0 and flags as "true".
"""

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

Box = list[int | float]  # four numbers

BRIEF = 80  # characters of a value in a message
WHOLE = re.compile(r"[+-]?\d+(\.0*)?")
FLAGS = {"true": True, "yes": True, "false": False, "no": False, "": False}


def whole(value: Any) -> int | None:
    """The whole number that ``value`` is, of whatever size: 7, 7.0, "7" or "7.0"; "1_2" and True are none."""
    if isinstance(value, bool):
        return None
    if isinstance(value, int):
        return value
    if isinstance(value, float):
        return int(value) if value.is_integer() else None
    if isinstance(value, str) and WHOLE.fullmatch(value.strip()):
        return int(value.strip().partition(".")[0])
    return None


def number(value: Any) -> int | float | None:
    """The finite number that ``value`` is, in digits or as text; a value that is one already comes back as it is."""
    if isinstance(value, bool):
        return None
    if isinstance(value, str) and "_" not in value:  # which Python takes for a mark between digits
        try:
            value = float(value)
        except ValueError:
            return None
    if not isinstance(value, int | float):
        return None
    try:
        return value if math.isfinite(value) else None
    except OverflowError:  # a whole number beyond every float
        return None


def flag(value: Any) -> bool | None:
    """Whether ``value`` is set: 0, 1, "0", "1", true, "true" and their like; no value is not set."""
    if value is None:
        return False
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value.strip().casefold() in FLAGS:
        return FLAGS[value.strip().casefold()]
    found = number(value)
    return None if found is None or found not in (0, 1) else bool(found)


def box(value: Any) -> Box | None:
    """The four finite numbers of a box, from a list, or from a list written as text."""
    if isinstance(value, str):
        value = [part for part in re.split(r"[\s,;]+", value.strip().strip("[]()")) if part]
    if not isinstance(value, list) or len(value) != 4:
        return None
    numbers = [number(part) for part in value]
    return None if any(part is None for part in numbers) else [part for part in numbers if part is not None]


def brief(value: Any) -> str:
    """A value for a message: on one line, and not more of it than tells which it is."""
    text = "".join(letter if letter.isprintable() else "?" for letter in str(value)[: BRIEF + 1])
    return text if len(text) <= BRIEF else f"{text[:BRIEF]}…"


def enclosing(segmentation: Any) -> Box | None:
    """The box (xywh, pixels) around polygons or a run-length mask; None where there is neither."""
    if isinstance(segmentation, Mapping):
        return _around_mask(segmentation)
    if not isinstance(segmentation, Sequence) or isinstance(segmentation, str) or not segmentation:
        return None
    polygons = segmentation if isinstance(segmentation[0], list) else [segmentation]
    try:
        xs = [float(x) for polygon in polygons for x in polygon[0::2]]
        ys = [float(y) for polygon in polygons for y in polygon[1::2]]
    except (TypeError, ValueError):
        return None
    if len(xs) < 2 or len(ys) != len(xs) or not all(map(math.isfinite, xs + ys)):
        return None
    return [min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys)]


def _around_mask(mask: Mapping[str, Any]) -> Box | None:
    from pycocotools import mask as masks

    try:
        counts, (height, width) = mask["counts"], mask["size"]
        packed = masks.frPyObjects(mask, height, width) if isinstance(counts, list) else mask
        found: Box = masks.toBbox(packed).tolist()
    except Exception:  # C code that says of a damaged mask what it likes
        return None
    return found
