"""COCO and LVIS annotation files: read and checked; every oddity of real ones is handled below here and counted."""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from refinebox.data import image_files, objects, sizes
from refinebox.data.fields import brief, whole
from refinebox.data.frames import Reading
from refinebox.data.ids import Ids
from refinebox.data.images import read_image
from refinebox.data.tally import Tally
from refinebox.files.download import sha256_of

NEEDED = {"images": ("id", "file_name"), "annotations": (), "categories": ("id", "name")}
LIMIT = 100  # detections of a category in an image that COCO's evaluation counts
# of an image of LVIS: categories that are known not to be in it, and those of which not all objects are annotated
FEDERATED = ("neg_category_ids", "not_exhaustive_category_ids")


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
        original_images, original_categories: the file's own ids of those that have another number here.
        upright: whether labelling looked at images turned as EXIF says, where their size does not tell.
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
    original_images: dict[int, Any] = field(default_factory=dict)
    original_categories: dict[int, Any] = field(default_factory=dict)
    upright: bool = True
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

    def origin(self) -> dict[str, Any]:
        """Name and SHA-256 of the annotation file, where there is one, and how many images and boxes these are."""
        file = {} if self.source is None else {"file": self.source.name, "sha256": sha256_of(self.source)}
        return {**file, "images": len(self.images), "boxes": len(self.annotations)}

    @cached_property
    def image_ids(self) -> Ids:
        """The images' numbers beside the file's ids."""
        return Ids({entry["id"]: self.original_images.get(entry["id"], entry["id"]) for entry in self.images})

    @cached_property
    def category_ids(self) -> Ids:
        """The categories' numbers beside the file's ids."""
        return Ids({number: self.original_categories.get(number, number) for number in self.categories})

    @cached_property
    def used(self) -> set[int]:
        """The categories that some annotation has; all of them where there is no annotation."""
        return {entry["category_id"] for entry in self.annotations} or set(self.categories)


def read(
    annotations: Path,
    folder: Path,
    *,
    images_needed: bool = True,
    strict: bool = True,
    boxes: Reading | None = None,
) -> CocoData:
    """The checked content of a COCO or LVIS annotation file whose images are in ``folder``.

    What cannot be an object is left out, what is missing or cannot be is filled in, ids that evaluators would round or
    take for "not found" are replaced by numbers, and all of it is counted.

    Args:
        annotations, folder: the file and where its images are.
        images_needed: whether anybody will look at the images.
        strict: whether all of them are needed; otherwise some may be missing or unreadable, though not all missing.
        boxes: what boxes are that do not fit as COCO's xywh; by default they are an error.

    Raises:
        FileNotFoundError: the annotation file is missing, or images that are needed.
        ValueError: the file is not COCO JSON, an id stands for two things, no annotation can be used, boxes are in
            another form, or images are not those that were labelled; the message says where.
    """
    content, tally = _parse(annotations), Tally()
    entries, image_ids = _numbered(content["images"], "image", annotations, tally)
    names, category_ids = _numbered(content["categories"], "category", annotations, tally)
    entries = [_federated(entry, category_ids, tally) for entry in entries]
    if images_needed:
        entries = _located(entries, folder, annotations, strict, tally)
    try:
        files = sizes.Files.of(entries, folder, needed=images_needed, strict=strict and images_needed)
        located = objects.locate(content["annotations"], (image_ids, category_ids), tally)
        entries = files.settle(files.fill(entries, tally), located, tally)
        kept = objects.complete(located, {entry["id"]: entry for entry in entries}, tally, boxes)
    except ValueError as error:
        raise ValueError(f"{annotations}: {error}") from error
    categories = {entry["id"]: str(entry["name"]) for entry in names}
    _count(entries, kept, categories, tally)
    return CocoData(
        entries,
        kept,
        categories,
        folder,
        tally.notes(),
        {entry["id"]: entry["frequency"] for entry in names if "frequency" in entry},
        annotations,
        image_ids.changed,
        category_ids.changed,
        files.upright,
    )


def labelled_size(entry: dict[str, Any]) -> tuple[int, int] | None:
    """(width, height) of an image entry, which its boxes are in; None where nobody knows it."""
    size = entry.get("width", 0), entry.get("height", 0)
    return size if all(size) else None


def labelled_picture(data: CocoData, entry: dict[str, Any]) -> Image.Image:
    """The image of an entry in RGB, turned and resized to what its boxes are in.

    Raises:
        FileNotFoundError, ValueError: it cannot be read, or is another image; the message names the file.
    """
    size = labelled_size(entry)
    image = read_image(data.folder / entry["file_name"], size, upright=data.upright)
    return image if size in (None, image.size) else image.resize(size, Image.Resampling.LANCZOS)


def _parse(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise FileNotFoundError(f"no annotation file at {path}; check the path")
    try:
        content = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not JSON ({error}); expected COCO annotations") from error
    for key, fields in NEEDED.items():
        entries = content.get(key) if isinstance(content, dict) else None
        if not isinstance(entries, list):
            raise ValueError(f"{path} is not COCO JSON: no list {key!r}; expected {', '.join(NEEDED)}")
        if key == "images":
            entries = content[key] = [_named(entry) for entry in entries]
        for index, entry in enumerate(entries):
            lacking = [field for field in fields if not isinstance(entry, dict) or entry.get(field) in (None, "")]
            if lacking:
                raise ValueError(f"{path} is not COCO JSON: {key}[{index}] has no {lacking[0]!r}")
            if fields and (isinstance(entry["id"], bool) or not isinstance(entry["id"], int | float | str)):
                raise ValueError(
                    f"{path}: 'id' of {key}[{index}] is {brief(entry['id'])}; expected a whole number or a name"
                )
    if not content["images"]:
        raise ValueError(f"{path} lists no images; expected at least one")
    return dict(content)


def _named(entry: Any) -> Any:
    """LVIS names an image file by its address alone, of which COCO's folder and file are the last two parts."""
    if not isinstance(entry, dict) or "file_name" in entry or "coco_url" not in entry:
        return entry
    return {**entry, "file_name": "/".join(str(entry["coco_url"]).split("/")[-2:])}


def _numbered(
    entries: Sequence[dict[str, Any]], what: str, path: Path, tally: Tally
) -> tuple[list[dict[str, Any]], Ids]:
    """The entries under numbers, each id once, with their sizes as numbers; and the ids."""
    name, article = ("file_name", "an") if what == "image" else ("name", "a")
    kept: dict[str, dict[str, Any]] = {}
    for entry in entries:
        first = kept.setdefault(str(entry["id"]), entry)
        if first is not entry and first[name] != entry[name]:
            raise ValueError(
                f"{path} uses {article} {what} id twice; ids must be unique: {brief(entry['id'])} is "
                f"{brief(first[name])} and {brief(entry[name])}"
            )
        tally.add(f"{what} entries that are there twice left out", f"id {entry['id']}", int(first is not entry))
    ids = Ids.of(entry["id"] for entry in kept.values())
    if ids.renumbered:
        tally.add(f"{what} ids numbered inside", repr(next(iter(ids.changed.values()))), len(kept))
    numbered = [{**entry, "id": number} for number, entry in zip(ids.originals, kept.values(), strict=True)]
    repeated = Counter(str(entry[name]) for entry in numbered)
    for text, count in repeated.items():
        label = "images that are listed under several ids" if what == "image" else "categories of equal names"
        tally.add(label, text, count - 1)
    if what == "image":
        numbered = [_with_sizes(entry, tally) for entry in numbered]
    return numbered, ids


def _with_sizes(entry: dict[str, Any], tally: Tally) -> dict[str, Any]:
    found = dict(entry)
    for side in ("width", "height"):
        if side in entry:
            value = whole(entry[side])
            found[side] = value if value is not None and 0 < value < 10**7 else 0
            unusable = entry[side] not in (None, 0) and not found[side]
            tally.add("image sizes that cannot be", f"{side} {entry[side]!r} of {entry['file_name']}", int(unusable))
    return found


def _federated(entry: dict[str, Any], category_ids: Ids, tally: Tally) -> dict[str, Any]:
    """An image entry with LVIS' lists as numbers of categories that there are; one that is no list is left out."""
    found = dict(entry)
    for name in FEDERATED:
        given = found.pop(name, None)
        if isinstance(given, list):
            numbers = [category_ids.number(value) for value in given]
            found[name] = [number for number in numbers if number is not None]
            strange = next((repr(value) for value, number in zip(given, numbers, strict=True) if number is None), "")
            tally.add(f"{name} of categories that are not listed", strange, len(numbers) - len(found[name]))
        elif given is not None:
            tally.add(f"{name} that are no lists", brief(given))
    return found


def _located(
    entries: list[dict[str, Any]], folder: Path, annotations: Path, strict: bool, tally: Tally
) -> list[dict[str, Any]]:
    """With the path of each image below ``folder`` as ``file_name``.

    Raises:
        FileNotFoundError: all are missing, or, where ``strict``, some.
    """
    names = [str(entry["file_name"]) for entry in entries]
    files = image_files.found(names, folder)
    missing = [name for name in names if name not in files]
    if missing and (strict or len(missing) == len(entries)):
        raise FileNotFoundError(
            f"{len(missing)} of {len(entries)} images of {annotations} are not in {folder}, such as {brief(missing[0])}"
        )
    tally.add("image files missing", "", len(missing))
    for entry, name in zip(entries, names, strict=True):
        moved = files.get(name, name) != entry["file_name"]
        tally.add("images found under another path", f"{entry['file_name']!r} at {files.get(name)}", int(moved))
    return [{**entry, "file_name": files.get(name, name)} for entry, name in zip(entries, names, strict=True)]


def _count(entries: list[dict[str, Any]], kept: list[dict[str, Any]], categories: dict[int, str], tally: Tally) -> None:
    """Notes what is sound but may surprise."""
    plain = [entry for entry in kept if not entry["iscrowd"]]
    tally.add("images without objects", "", len(entries) - len({entry["image_id"] for entry in plain}))
    if kept:
        used = {entry["category_id"] for entry in kept}
        unused = [name for number, name in categories.items() if number not in used]
        tally.add("categories without objects", unused[0] if unused else "", len(unused))
    crowded = Counter((entry["image_id"], entry["category_id"]) for entry in plain)
    over = {key: count for key, count in crowded.items() if count > LIMIT}
    if over:
        lost = sum(count - LIMIT for count in over.values())
        share = 1 - lost / len(plain)
        tally.add(
            f"images with more than {LIMIT} objects of a category, of which COCO counts the best {LIMIT} detections: "
            f"at most {share:.0%} of all objects can be found",
            "",
            len({image for image, _ in over}),
        )
