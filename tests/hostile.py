"""One good data set and results file, and every way in which other tools might have written them wrong."""

import copy
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

CATEGORIES = [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}, {"id": 3, "name": "hen"}]
SIZES = ((120, 160), (160, 120), (100, 100), (90, 180), (128, 96), (150, 150))  # width, height
Content = dict[str, Any]

VALUES: dict[str, Any] = {
    **{"null": None, "true": True, "false": False, "zero": 0, "one": 1, "negative": -1, "half": 0.5, "float": 3.0},
    **{"text": "text", "digits": "3", "decimal": "3.0", "underscore": "1_2", "empty text": "", "spaces": " 3 "},
    **{"list": [], "list of one": [1], "object": {}, "nested": [[1, 2, 3, 4]], "beyond 2^53": 2**53 + 1},
    **{"beyond 2^64": 2**64 + 1, "far below": -(2**40), "tiny": 1e-9, "huge": 1e300, "NaN": float("nan")},
    **{"infinite": float("inf"), "long text": "x" * 5000, "name of a category": "dog", "control": "a\x00b"},
}
VALID = (1, True, 3.0, "3", "3.0", " 3 ", "dog")  # for an id: another one, which nobody can know to be wrong
FIELDS = {
    "images": ("id", "file_name", "width", "height"),
    "annotations": ("id", "image_id", "category_id", "bbox", "area", "iscrowd", "segmentation"),
    "categories": ("id", "name"),
}
RESULTS = ("image_id", "category_id", "bbox", "score")


def good(folder: Path) -> tuple[Content, list[Content]]:
    """Writes six images; annotations of forty objects, and detections of most of them, not quite in place."""
    random = np.random.default_rng(0)
    images, annotations, results = [], [], []
    for number, (width, height) in enumerate(SIZES, start=1):
        name = f"picture-{number}.png"
        Image.fromarray(random.integers(0, 256, (height, width, 3), dtype=np.uint8)).save(folder / name)
        images.append({"id": number, "file_name": name, "width": width, "height": height})
        for _ in range(7):
            sides = random.uniform(0.15, 0.4, 2) * (width, height)
            corner = random.uniform(0, 1, 2) * ((width, height) - sides)
            box = [round(float(value), 2) for value in (*corner, *sides)]
            category = int(random.integers(1, 4))
            known = {"image_id": number, "category_id": category}
            annotations.append(
                {"id": len(annotations) + 1, **known, "bbox": box, "area": box[2] * box[3] * 0.8, "iscrowd": 0}
            )
            if random.random() < 0.85:
                moved = np.array(box) + random.normal(0, 0.06, 4) * [box[2], box[3], box[2], box[3]]
                moved[:2] = moved[:2].clip(0, None)
                moved[2:] = np.minimum(moved[2:], np.array([width, height]) - moved[:2])
                score = round(float(random.uniform(0.3, 1)), 4)
                results.append({**known, "bbox": [round(float(value), 2) for value in moved], "score": score})
    return {"images": images, "annotations": annotations, "categories": CATEGORIES}, results


Spoil = Callable[[Content, list[Content]], tuple[Any, Any]]


def variants() -> Iterator[tuple[str, Spoil]]:
    """Name and spoiler of each; a spoiler gets copies of both files' contents and returns what to write instead."""
    for where, fields in FIELDS.items():
        for field in fields:
            yield f"{where} {field}: lacking in one", _without(where, field, one=True)
            yield f"{where} {field}: lacking in all", _without(where, field, one=False)
            for name, value in VALUES.items():
                if not (field == "category_id" and value in VALID):
                    yield f"{where} {field}: {name} in one", _set(where, field, value, one=True)
                yield f"{where} {field}: {name} in all", _set(where, field, value, one=False)
    for field in RESULTS:
        for name, value in VALUES.items():
            if not (field in ("image_id", "category_id") and value in VALID):
                yield f"results {field}: {name} in one", _set("results", field, value, one=True)
            yield f"results {field}: {name} in all", _set("results", field, value, one=False)
    yield from _whole()


def _entries(content: Content, results: list[Content], where: str) -> list[Content]:
    found: list[Content] = results if where == "results" else content[where]
    return found


def _set(where: str, field: str, value: Any, *, one: bool) -> Spoil:
    def spoil(content: Content, results: list[Content]) -> tuple[Any, Any]:
        for entry in _entries(content, results, where)[: 1 if one else None]:
            entry[field] = copy.deepcopy(value)
        return content, results

    return spoil


def _without(where: str, field: str, *, one: bool) -> Spoil:
    def spoil(content: Content, results: list[Content]) -> tuple[Any, Any]:
        for entry in _entries(content, results, where)[: 1 if one else None]:
            entry.pop(field, None)
        return content, results

    return spoil


def _boxes(where: str, change: Callable[[list[float], Content], list[float]], every: int = 1) -> Spoil:
    def spoil(content: Content, results: list[Content]) -> tuple[Any, Any]:
        images = {entry["id"]: entry for entry in content["images"]}
        for entry in _entries(content, results, where)[::every]:
            entry["bbox"] = change(entry["bbox"], images[entry["image_id"]])
        return content, results

    return spoil


def _fractions(box: list[float], image: Content) -> list[float]:
    return [value / image["height" if index % 2 else "width"] for index, value in enumerate(box)]


BOXES: dict[str, Callable[[list[float], Content], list[float]]] = {
    "corners": lambda b, _: [b[0], b[1], b[0] + b[2], b[1] + b[3]],
    "centres": lambda b, _: [b[0] + b[2] / 2, b[1] + b[3] / 2, b[2], b[3]],
    "fractions": _fractions,
    "fractions of corners": lambda b, i: _fractions([b[0], b[1], b[0] + b[2], b[1] + b[3]], i),
    "fractions of centres": lambda b, i: _fractions([b[0] + b[2] / 2, b[1] + b[3] / 2, b[2], b[3]], i),
    "pixels of 640 x 640": lambda b, i: [640 * value for value in _fractions(b, i)],
    "pixels of 1024 at most": lambda b, i: [value * 1024 / max(i["width"], i["height"]) for value in b],
    "negative sides": lambda b, _: [b[0] + b[2], b[1] + b[3], -b[2], -b[3]],
    "beyond the image": lambda b, i: [b[0] + 3 * i["width"], b[1], b[2], b[3]],
    "x and y exchanged": lambda b, _: [b[1], b[0], b[3], b[2]],
    "text": lambda b, _: [str(value) for value in b],  # type: ignore[misc]
    "no sides": lambda b, _: [b[0], b[1], 0, 0],
    "five numbers": lambda b, _: [*b, 1.0],
}


def _whole() -> Iterator[tuple[str, Spoil]]:
    for name, change in BOXES.items():
        for where in ("annotations", "results"):
            yield f"{where}: {name}", _boxes(where, change)
            yield f"{where}: {name} in every third", _boxes(where, change, 3)
    yield "annotations twice", lambda c, r: ({**c, "annotations": c["annotations"] * 2}, r)
    yield "images twice", lambda c, r: ({**c, "images": c["images"] * 2}, r)
    yield "categories twice", lambda c, r: ({**c, "categories": c["categories"] * 2}, r)
    yield "results twice", lambda c, r: (c, r * 2)
    yield "half the results twice", lambda c, r: (c, r + r[::2])
    yield "results of half the images", lambda c, r: (c, [entry for entry in r if entry["image_id"] > 3])
    yield "no results", lambda c, r: (c, [])
    yield "no annotations", lambda c, r: ({**c, "annotations": []}, r)
    yield "no images", lambda c, r: ({**c, "images": []}, r)
    yield "no categories", lambda c, r: ({**c, "categories": []}, r)
    for key in ("images", "annotations", "categories"):
        yield f"no list of {key}", lambda c, r, key=key: ({k: v for k, v in c.items() if k != key}, r)  # type: ignore[misc]
        yield f"{key} by id", lambda c, r, key=key: ({**c, key: {str(e["id"]): e for e in c[key]}}, r)  # type: ignore[misc]
    yield "a list of annotations", lambda c, r: (c["annotations"], r)
    yield "results inside", lambda c, r: (c, {"annotations": r})
    yield "results by image", lambda c, r: (c, {str(entry["image_id"]): entry for entry in r})
    for step in (-1, 1):
        yield f"categories of results moved by {step}", _moved("category_id", step)
        yield f"images of results moved by {step}", _moved("image_id", step)
    yield "images of results by stem", _named(lambda name: name.removesuffix(".png"))
    yield "images of results by name", _named(str)
    yield "an unused category", lambda c, r: ({**c, "categories": [{"id": 0, "name": "animals"}, *c["categories"]]}, r)
    yield "equal names", lambda c, r: ({**c, "categories": [{**e, "name": "cat"} for e in c["categories"]]}, r)
    yield "sizes exchanged", lambda c, r: ({**c, "images": [_turned(e) for e in c["images"]]}, r)
    yield "backslashes", lambda c, r: ({**c, "images": [_renamed(e, "images\\{}") for e in c["images"]]}, r)
    yield "folders", lambda c, r: ({**c, "images": [_renamed(e, "a/b/{}") for e in c["images"]]}, r)
    yield (
        "capitals",
        lambda c, r: ({**c, "images": [{**e, "file_name": e["file_name"].upper()} for e in c["images"]]}, r),
    )


def _moved(field: str, step: int) -> Spoil:
    def spoil(content: Content, results: list[Content]) -> tuple[Any, Any]:
        return content, [{**entry, field: entry[field] + step} for entry in results]

    return spoil


def _named(change: Callable[[str], str]) -> Spoil:
    def spoil(content: Content, results: list[Content]) -> tuple[Any, Any]:
        names = {entry["id"]: change(entry["file_name"]) for entry in content["images"]}
        return content, [{**entry, "image_id": names[entry["image_id"]]} for entry in results]

    return spoil


def _turned(entry: Content) -> Content:
    return {**entry, "width": entry["height"], "height": entry["width"]}


def _renamed(entry: Content, pattern: str, *, upper: bool = False) -> Content:
    name = entry["file_name"].upper() if upper else entry["file_name"]
    return {**entry, "file_name": pattern.format(name)}


def write(path: Path, content: Any) -> Path:
    """JSON as Python writes it, which is not always JSON."""
    path.write_text(json.dumps(content))
    return path
