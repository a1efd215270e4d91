"""Image files through a detector: COCO results, and a picture of each."""

import unicodedata
from collections import Counter
from collections.abc import Container, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from io import BytesIO
from pathlib import Path
from typing import Any

from PIL import Image

from refinebox import distributed
from refinebox.data.image_files import SUFFIXES
from refinebox.data.images import read_image
from refinebox.data.proposals import Found, lacks
from refinebox.detection.detector import Detector
from refinebox.detection.output import Detections
from refinebox.files import checkpoint, place
from refinebox.progress import track
from refinebox.report.close_ups import Moved, most_moved, sheet
from refinebox.report.pictures import detection_layers, named, picture
from refinebox.report.returned import detect_image, fractions, returned_of

QUALITY = 88  # of a JPEG; a PNG has none


@dataclass(frozen=True)
class Predicted:
    """What was predicted.

    Attributes:
        results: the file.
        pictures: one for each image.
        skipped: why the images that are missing could not be read.
        passed: what else the folders hold, in words; empty where there is nothing.
        without: how many images have no boxes, where somebody else should have said what is in them.
    """

    results: Path
    pictures: list[Path]
    skipped: list[str]
    passed: str = ""
    without: int = 0


def predict(
    detector: Detector,
    inputs: Sequence[Path],
    output: Path,
    *,
    threshold: float = 0.3,
    least: float = 0.0,
    recursive: bool = False,
    compare: bool = False,
) -> Predicted:
    """Writes ``results.json`` and ``pictures/`` to ``output`` for image files and for all images in folders.

    Results are in COCO's format, with the image's place in the list as its id and its path beside it. Further fields
    are for tools that browse: the category's name under ``label``, and the box under ``before`` and, of an upgraded
    detector, ``after`` refinement: (x, y, width, height) as fractions of the image. Pictures show detections with a
    score of at least ``threshold``: dashed as the detector placed them, solid as refined. Images are turned as EXIF
    says. Those with a score below ``least`` are not written. With ``recursive``, folders in folders count too;
    with ``compare``, close-ups of the boxes that moved most stand beside each image.

    Raises:
        FileNotFoundError: an input does not exist, or a folder holds no images.
        ValueError: no images are named, or none of them can be read; or there is nothing to ``compare``.
        NotADirectoryError, PermissionError: ``output`` is a file, or may not be written to.
        FileExistsError: a picture would take the place of an image.
    """
    place.check_folder(output, " for the results")
    place.check_file(output / "results.json")
    paths = find_images(inputs, recursive=recursive)
    taken: dict[str, Path] = {}
    for path in paths:
        name = free_name(output / "pictures" / f"{path.stem}.png", taken)
        taken[anywhere(name)] = name
    names = list(taken.values())
    place.check_apart(names, paths)
    given = detector.proposals_in(paths)
    indices = range(len(paths))[distributed.rank() :: distributed.processes()]
    found = distributed.gathered(
        [
            predict_image(
                detector, index + 1, paths[index], names[index], threshold, given[index], least, compare=compare
            )
            for index in track(indices, "predict", len(indices))
        ]
    )
    skipped = [item.skipped for item in found if item.skipped]
    if len(skipped) == len(paths):
        raise ValueError(f"none of {len(paths)} images could be read: {skipped[0]}")
    checkpoint.write_json(output / "results.json", [row for item in found for row in item.rows])
    pictures = [item.picture for item in found if not item.skipped]
    without = sum(item.without for item in found)
    return Predicted(output / "results.json", pictures, skipped, passed_over(inputs, recursive=recursive), without)


@dataclass(frozen=True)
class PredictedImage:
    """COCO result entries of one image and its picture, or why it could not be read; whether nobody gave it boxes."""

    rows: list[dict[str, Any]]
    picture: Path
    skipped: str = ""
    without: bool = False


def predict_image(
    detector: Detector,
    image_id: int,
    path: Path,
    picture_file: Path,
    threshold: float,
    given: Found | None = None,
    least: float = 0.0,
    *,
    compare: bool = False,
) -> PredictedImage:
    """Detects in one image, or takes the boxes that are ``given``, and writes its picture."""
    without = lacks(given)
    try:
        image = read_image(path)
    except ValueError as error:
        return PredictedImage([], picture_file, str(error), without)
    found = detect_image(detector, image, given)
    after, names = found.get("after", found["before"]), detector.category_names
    if compare and "after" not in found:
        raise ValueError(
            f"{detector.profile.name} is not refined, so there is nothing to compare; name a file that refinebox apply "
            "wrote, or leave out --compare"
        )
    if compare:
        save_picture(sheet([moved(image, found, names, threshold)]), picture_file)
    else:
        layers = detection_layers(found["before"] if "after" in found else None, after, names, threshold)
        save_picture(picture(image, layers), picture_file)
    returned = returned_of(detector, found, image, least)
    rows = [{"image_id": image_id, "file_name": str(path), **row} for row in result_rows(list(returned.values())[-1])]
    for name, detections in returned.items():
        for row, box in zip(rows, fractions(detections.boxes, image), strict=True):
            row |= {"label": detector.category_names.get(row["category_id"], str(row["category_id"])), name: box}
    return PredictedImage(rows, picture_file, without=without)


def find_images(inputs: Sequence[Path], *, recursive: bool = False) -> list[Path]:
    """The given files and the image files in the given folders, sorted within each folder."""
    if not inputs:
        raise ValueError("no images named; expected image files or folders of images")
    paths: list[Path] = []
    for item in inputs:
        if not item.exists():
            raise FileNotFoundError(f"no file or folder at {item}; check the path")
        found = sorted(path for path in inside(item, recursive) if is_image(path)) if item.is_dir() else [item]
        if not found:
            others = passed_over([item], recursive=recursive)
            raise FileNotFoundError(
                f"{item} holds no images; expected files that end in {', '.join(sorted(readable()))}"
                f"{'; there are ' + others if others else ''}"
            )
        paths += found
    return paths


def inside(folder: Path, recursive: bool) -> Iterator[Path]:
    """What lies in a folder, and in the folders in it; hidden files are left alone."""
    paths = folder.rglob("*") if recursive else folder.iterdir()
    return (path for path in paths if not path.name.startswith("."))


def passed_over(inputs: Sequence[Path], *, recursive: bool = False) -> str:
    """What the given folders hold beside images, counted by ending."""
    others = [path for item in inputs if item.is_dir() for path in inside(item, recursive) if not is_image(path)]
    counts = Counter(path.suffix.lower() or "without an ending" for path in others if path.is_file())
    words = [f"{count} {suffix}" for suffix, count in sorted(counts.items())]
    folders = 0 if recursive else sum(path.is_dir() for path in others)
    if folders:
        words.append(f"{folders} folder{'s' if folders > 1 else ''} (--recursive goes into them)")
    if any(suffix in (".heic", ".heif") for suffix in counts):
        words.append("HEIC is read where pillow-heif is installed")
    return ", ".join(words)


def is_image(path: Path) -> bool:
    """Whether a file ends as an image does that can be read here."""
    return path.suffix.lower() in readable() and path.is_file()


@cache
def readable() -> frozenset[str]:
    """The endings of images that Pillow reads with what is installed."""
    with suppress(ImportError):
        import_module("pillow_heif").register_heif_opener()
    known = Image.registered_extensions()
    return frozenset(suffix for suffix in SUFFIXES if known.get(suffix) in Image.OPEN)


def result_rows(detections: Detections) -> list[dict[str, Any]]:
    """COCO result entries without their image."""
    rows = []
    for (x0, y0, x1, y1), score, label in zip(
        detections.boxes.tolist(), detections.scores.tolist(), detections.labels.tolist(), strict=True
    ):
        box = [round(value, 3) for value in (x0, y0, x1 - x0, y1 - y0)]
        rows.append({"category_id": label, "bbox": box, "score": round(score, 6)})
    return rows


def free_name(path: Path, taken: Container[str]) -> Path:
    """``path``, or with a number where an image of the same name, as :func:`anywhere` gives it, came before."""
    number, free = 2, path
    while anywhere(free) in taken:
        free = path.with_stem(f"{path.stem}_{number}")
        number += 1
    return free


def anywhere(path: Path) -> str:
    """A path as systems take it that tell neither small letters from capitals nor composed letters from others."""
    return unicodedata.normalize("NFC", str(path).casefold())


def save_picture(image: Image.Image, path: Path) -> None:
    """Writes a PNG, or a JPEG where the name ends so, whole or not at all."""
    with BytesIO() as buffer:
        image.save(buffer, "JPEG" if path.suffix == ".jpg" else "PNG", quality=QUALITY)
        checkpoint.write_bytes(path, buffer.getvalue())


def moved(image: Image.Image, found: Mapping[str, Detections], names: Mapping[int, str], threshold: float) -> Moved:
    """What :func:`detect_image` found with a score of at least ``threshold``, before and after, to be compared."""
    before, after = found["before"], found["after"]
    kept = after.scores >= threshold
    return Moved(image, before.boxes[kept], after.boxes[kept], named(after, names, threshold))


def before_and_after(model: Detector, paths: Sequence[Path], threshold: float = 0.4, count: int = 2) -> Image.Image:
    """The ``count`` images whose boxes moved most, with close-ups: dashed as detected, solid as refined."""
    given = model.proposals_in(paths)
    images = [read_image(path) for path in paths]
    found = [detect_image(model, image, boxes) for image, boxes in zip(images, given, strict=True)]
    pairs = [moved(*both, model.category_names, threshold) for both in zip(images, found, strict=True)]
    return sheet(most_moved(pairs, count))
