"""Image files through a detector: COCO results, and a picture of each."""

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cache
from importlib import import_module
from io import BytesIO
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from refinebox import distributed
from refinebox.boxes import to_pixels
from refinebox.data.batches import Batch
from refinebox.data.image_files import SUFFIXES
from refinebox.data.images import read_image
from refinebox.data.proposals import Found
from refinebox.detection.detector import Detector
from refinebox.detection.output import Detections
from refinebox.evaluation.detect import stages
from refinebox.files import checkpoint
from refinebox.progress import track
from refinebox.report.pictures import detection_layers, montage, picture


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
    detector: Detector, inputs: Sequence[Path], output: Path, *, threshold: float = 0.3, recursive: bool = False
) -> Predicted:
    """Writes ``results.json`` and ``pictures/`` to ``output`` for image files and for all images in folders.

    Results are in COCO's format, with the image's place in the list as its id and its path beside it. Pictures show
    detections with a score of at least ``threshold``: dashed as the detector placed them, solid as refined. Images are
    turned as EXIF says. With ``recursive``, folders in folders count too.

    Raises:
        FileNotFoundError: an input does not exist, or a folder holds no images.
        ValueError: no images are named, or none of them can be read.
        NotADirectoryError: ``output`` is a file.
    """
    if output.exists() and not output.is_dir():
        raise NotADirectoryError(f"{output} is a file; name a folder for the results")
    paths = find_images(inputs, recursive=recursive)
    names: list[Path] = []
    for path in paths:
        names.append(free_name(output / "pictures" / f"{path.stem}.png", names))
    given = detector.proposals_in(paths)
    items = list(enumerate(zip(paths, names, given, strict=True), start=1))
    items = items[distributed.rank() :: distributed.processes()]
    found = distributed.gathered(
        [
            predict_image(detector, image_id, path, name, threshold, boxes)
            for image_id, (path, name, boxes) in track(items, "predict", len(items))
        ]
    )
    skipped = [item.skipped for item in found if item.skipped]
    if len(skipped) == len(paths):
        raise ValueError(f"none of {len(paths)} images could be read: {skipped[0]}")
    checkpoint.write_json(output / "results.json", [row for item in found for row in item.rows])
    pictures = [item.picture for item in found if not item.skipped]
    without = sum(boxes is not None and not len(boxes.boxes) for boxes in given)
    return Predicted(output / "results.json", pictures, skipped, passed_over(inputs, recursive=recursive), without)


@dataclass(frozen=True)
class PredictedImage:
    """COCO result entries of one image and its picture, or why it could not be read."""

    rows: list[dict[str, Any]]
    picture: Path
    skipped: str = ""


def predict_image(
    detector: Detector, image_id: int, path: Path, picture_file: Path, threshold: float, given: Found | None = None
) -> PredictedImage:
    """Detects in one image, or takes the boxes that are ``given``, and writes its picture."""
    try:
        image = read_image(path)
    except ValueError as error:
        return PredictedImage([], picture_file, str(error))
    found = detect_image(detector, image, given)
    after = found.get("after", found["before"])
    layers = detection_layers(found["before"] if "after" in found else None, after, detector.category_names, threshold)
    save_picture(picture(image, layers), picture_file)
    rows = result_rows(detector.finish(after, (image.height, image.width)))
    return PredictedImage([{"image_id": image_id, "file_name": str(path), **row} for row in rows], picture_file)


def detect_image(detector: Detector, image: Image.Image, given: Found | None = None) -> dict[str, Detections]:
    """``after`` as a refined detector chooses, and ``before``: the same queries where they were; or that alone."""
    device = next(detector.parameters()).device
    images, sizes = detector.profile.input.pad([detector.preprocess(image)])
    proposals = None if given is None else given.within(image.height, image.width)
    batch = Batch(images, sizes, torch.tensor([[image.height, image.width]]), [], [], proposals=proposals).to(device)
    found = stages(detector, batch)
    last = found.get("after", found["before"])
    [chosen] = detector.select(detector.scores_of(last), last.boxes, batch.original_sizes)
    if "after" not in found and not detector.profile.final.voting:
        return {"before": chosen}
    unmoved = to_pixels(found["before"].boxes, batch.original_sizes)[0, chosen.queries]
    return {"before": replace(chosen, boxes=unmoved), "after": chosen}


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


def free_name(path: Path, taken: Sequence[Path]) -> Path:
    """``path``, or with a number where an image of the same name came before."""
    number, free = 2, path
    while free in taken:
        free = path.with_stem(f"{path.stem}_{number}")
        number += 1
    return free


def save_picture(image: Image.Image, path: Path) -> None:
    """Writes a PNG, whole or not at all."""
    with BytesIO() as buffer:
        image.save(buffer, "PNG")
        checkpoint.write_bytes(path, buffer.getvalue())


def before_and_after(model: Detector, paths: Sequence[Path], columns: int = 4) -> Image.Image:
    """The images whose boxes moved, side by side: dashed as detected, solid as refined."""
    pictures = []
    for path, given in zip(paths, model.proposals_in(paths), strict=True):
        image = read_image(path)
        found = detect_image(model, image, given)
        pictures.append(picture(image, detection_layers(found["before"], found["after"], model.category_names, 0.4)))
    return montage(pictures, columns)
