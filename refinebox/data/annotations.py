"""COCO and LVIS annotation files: found, read and checked; every oddity of real ones is handled here and counted."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from refinebox.data.images import read_image


@dataclass(frozen=True)
class CocoData:
    """A checked annotation file.

    Attributes:
        images: COCO image entries, complete with width and height; 0 where neither entry nor file tells them.
        annotations: COCO annotations, complete, with an id above 0 each, crowds included.
        categories: category id to name.
        folder: where the image files are.
        notes: what was dropped or filled in, and how often.
        frequencies: of each category id, ``r``, ``c`` or ``f``, in LVIS annotations; empty in others.
        source: the annotation file.
        given: ``[N, 7]`` what somebody else detected in these images: image id, x, y, width, height (pixels), score and
            category id; for a detector that takes boxes instead of finding its own.
    """

    images: list[dict[str, Any]]
    annotations: list[dict[str, Any]]
    categories: dict[int, str]
    folder: Path
    notes: dict[str, int]
    frequencies: dict[int, str] = field(default_factory=dict)
    source: Path | None = None
    given: NDArray[np.float64] | None = field(default=None, compare=False)

    def summary(self) -> str:
        """One line for people: how much there is, and what was dropped or filled in."""
        notes = "".join(f"; {count:,} {note}" for note, count in self.notes.items())
        return f"{len(self.images):,} images, {len(self.annotations):,} boxes, {len(self.categories)} categories{notes}"

    def coco(self) -> dict[str, Any]:
        """The content as COCO JSON, for evaluators."""
        categories = [{"id": category_id, "name": name} for category_id, name in self.categories.items()]
        annotations = [dict(annotation) for annotation in self.annotations]  # evaluators write into them
        return {"info": {}, "images": self.images, "annotations": annotations, "categories": categories}


def find(folder: Path, split: Literal["train", "val"]) -> tuple[Path, Path]:
    """(annotation file, image folder) of a split in COCO's layout, or in that of Roboflow's COCO export.

    Raises:
        FileNotFoundError: neither is there; the message says what was looked for.
    """
    found = sorted((folder / "annotations").glob(f"instances_{split}*.json"))
    if len(found) > 1:
        names = ", ".join(path.name for path in found)
        raise FileNotFoundError(
            f"{folder}/annotations holds several {split} files ({names}); name one with --annotations and --images"
        )
    if found:
        name = found[0].stem.removeprefix("instances_")
        folders = [folder / name, folder / "images" / name, folder / "images"]
        for images in folders:
            if images.is_dir():
                return found[0], images
        raise FileNotFoundError(f"no images for {found[0]}; looked for the folders {', '.join(map(str, folders))}")
    export = folder / ("valid" if split == "val" else split)
    if (export / "_annotations.coco.json").is_file():
        return export / "_annotations.coco.json", export
    raise FileNotFoundError(
        f"no {split} annotations under {folder}: expected annotations/instances_{split}*.json; "
        "name the parts with --annotations and --images"
    )


def locate(
    split: Literal["train", "val"],
    root: Path | None,
    annotations: Path | None,
    images: Path | None,
    *,
    images_needed: bool = True,
) -> tuple[Path, Path]:
    """(annotation file, image folder) of a split that is named by its data set's folder or by its parts.

    Raises:
        FileNotFoundError: the folder holds no such split.
        ValueError: neither is named, or both are.
    """
    if annotations is not None and (images is not None or not images_needed):
        return annotations, images or annotations.parent
    if root is not None and annotations is None and images is None:
        return find(root, split)
    raise ValueError(
        f"the {split} images are not named: pass --data DIR, or both the annotation file and the image folder"
    )


def read(annotations: Path, folder: Path, *, images_needed: bool = True, strict: bool = True) -> CocoData:
    """The checked content of a COCO or LVIS annotation file whose images are in ``folder``.

    Boxes without area are dropped; missing ``iscrowd`` and ``area`` are filled in; annotations are renumbered where an
    id is 0, missing or used twice, because COCO's evaluator takes id 0 for "not found".

    Args:
        annotations, folder: the file and where its images are.
        images_needed: whether anybody will look at the images.
        strict: whether all of them are needed; otherwise some may be missing or unreadable, though not all missing.

    Raises:
        FileNotFoundError: the annotation file is missing, or images that are needed.
        ValueError: the file is not COCO JSON, or an annotation refers to nothing; the message says where.
    """
    content = _parse(annotations)
    images = content["images"]
    missing = [entry["file_name"] for entry in images if not (folder / entry["file_name"]).is_file()]
    if missing and images_needed and (strict or len(missing) == len(images)):
        raise FileNotFoundError(
            f"{len(missing)} of {len(images)} images of {annotations} are not in {folder}, such as {missing[0]}"
        )
    notes: Counter[str] = Counter()
    notes["image files missing"] = len(missing) if images_needed else 0
    checked = [_sized(entry, folder, strict, notes) for entry in images]
    categories = {entry["id"]: str(entry["name"]) for entry in content["categories"]}
    kept = _check_annotations(content["annotations"], {entry["id"] for entry in images}, categories, annotations, notes)
    with_objects = {annotation["image_id"] for annotation in kept if not annotation["iscrowd"]}
    notes["images without objects"] = len(checked) - len(with_objects)
    frequencies = {entry["id"]: entry["frequency"] for entry in content["categories"] if "frequency" in entry}
    notes = Counter({note: count for note, count in notes.items() if count})
    return CocoData(checked, kept, categories, folder, dict(notes), frequencies, annotations)


def _sized(entry: dict[str, Any], folder: Path, strict: bool, notes: Counter[str]) -> dict[str, Any]:
    if entry.get("width") and entry.get("height"):
        return entry
    try:
        width, height = read_image(folder / entry["file_name"]).size
    except (OSError, ValueError):
        if strict:
            raise
        width = height = 0
    notes["image sizes read from files"] += width > 0
    return {**entry, "width": width, "height": height}


def _parse(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise FileNotFoundError(f"no annotation file at {path}; check the path")
    try:
        content = json.loads(path.read_bytes())
    except ValueError as error:
        raise ValueError(f"{path} is not JSON ({error}); expected COCO annotations") from error
    needed = {
        "images": ("id", "file_name"),
        "annotations": ("image_id", "category_id", "bbox"),
        "categories": ("id", "name"),
    }
    if isinstance(content, dict) and isinstance(content.get("images"), list):
        content["images"] = [_named(entry) for entry in content["images"]]
    for key, fields in needed.items():
        entries = content.get(key) if isinstance(content, dict) else None
        if not isinstance(entries, list):
            raise ValueError(f"{path} is not COCO JSON: no list {key!r}; expected {', '.join(needed)}")
        for index, entry in enumerate(entries):
            lacking = [field for field in fields if not isinstance(entry, dict) or field not in entry]
            if lacking:
                raise ValueError(f"{path} is not COCO JSON: {key}[{index}] has no {lacking[0]!r}")
            wrong = [field for field in fields if field.endswith("id") and not isinstance(entry[field], int)]
            if wrong:
                raise ValueError(
                    f"{path}: {wrong[0]!r} of {key}[{index}] is {entry[wrong[0]]!r}; expected a whole number"
                )
    if not content["images"]:
        raise ValueError(f"{path} lists no images; expected at least one")
    for key, what in (("images", "an image"), ("categories", "a category")):
        if len({entry["id"] for entry in content[key]}) < len(content[key]):
            raise ValueError(f"{path} uses {what} id twice; ids must be unique")
    return dict(content)


def _named(entry: Any) -> Any:
    """LVIS names an image file by its address alone, of which COCO's folder and file are the last two parts."""
    if not isinstance(entry, dict) or "file_name" in entry or "coco_url" not in entry:
        return entry
    return {**entry, "file_name": "/".join(str(entry["coco_url"]).split("/")[-2:])}


def _check_annotations(
    entries: Sequence[Mapping[str, Any]],
    image_ids: set[int],
    categories: Mapping[int, str],
    path: Path,
    notes: Counter[str],
) -> list[dict[str, Any]]:
    stray = sorted({str(entry["image_id"]) for entry in entries if entry["image_id"] not in image_ids})
    if stray:
        raise ValueError(
            f"{path}: annotations without images, image ids {', '.join(stray[:5])} ({len(stray)} in all) are not listed"
        )
    unknown = sorted({str(entry["category_id"]) for entry in entries if entry["category_id"] not in categories})
    if unknown:
        raise ValueError(
            f"{path}: annotations of unknown categories {', '.join(unknown[:5])}; "
            f"listed are {', '.join(map(str, categories))}"
        )
    ids = [entry.get("id") or 0 for entry in entries]
    renumber = 0 in ids or len(set(ids)) < len(ids)
    kept = []
    for index, entry in enumerate(entries):
        box = entry["bbox"]
        if (
            not isinstance(box, list)
            or len(box) != 4
            or not all(isinstance(value, int | float) and abs(value) < float("inf") for value in box)
        ):
            raise ValueError(
                f"{path}: the box of annotation {index} of image {entry['image_id']} is {box}; "
                "expected [x, y, width, height]"
            )
        if box[2] <= 0 or box[3] <= 0:
            notes["boxes without area dropped"] += 1
            continue
        area = entry.get("area")
        notes["areas filled in"] += area is None
        notes["iscrowd flags filled in"] += entry.get("iscrowd") is None
        notes["crowd regions (not trained on)"] += bool(entry.get("iscrowd"))
        kept.append(
            {
                **entry,
                "id": index + 1 if renumber else entry["id"],
                "iscrowd": int(bool(entry.get("iscrowd"))),
                "area": box[2] * box[3] if area is None else area,
            }
        )
    notes["annotation ids renumbered"] = len(kept) if renumber else 0
    return kept
