"""What the command line names, opened: detectors, data, and places to write to."""

from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import typer

from refinebox import distributed
from refinebox.data import annotations
from refinebox.data.annotations import CocoData
from refinebox.data.results_file import Rows
from refinebox.detection.detector import Detector
from refinebox.detection.given import image_files
from refinebox.evaluation.results import read_results
from refinebox.refinement.upgraded import open_model
from refinebox.report.predictions import SUFFIXES

HIGH = 0.3  # a lowest score above this costs AP


def load(
    name: str | None,
    weights: Path | None,
    device: str,
    short_side: int | None = None,
    long_side: int | None = None,
    results: Path | None = None,
    features: str | None = None,
) -> Detector:
    """The detector, or upgraded checkpoint, on its device; ``auto`` is the GPU where there is one.

    ``results`` has the boxes that it takes; ``features`` stands for a detector that takes some.
    """
    place = distributed.start(device)
    with distributed.first_alone():  # what one has downloaded the others find
        detector = open_model(name, weights, features)
    if results is not None:
        detector.take(results)
    detector.resize(short_side, long_side)
    try:
        return detector.to(place)
    except (RuntimeError, AssertionError) as error:  # torch raises the second for what it was not built with
        raise distributed.no_device(device, error) from error


def read_split(
    split: Literal["train", "val"],
    *named: Path | None,
    images_needed: bool = True,
    strict: bool = True,
    results: Path | None = None,
) -> CocoData:
    """A checked data set, of which it prints a summary; arguments as in :mod:`refinebox.data.annotations`.

    ``results`` are detections in it, for a detector that takes boxes.
    """
    found = annotations.locate(split, *named, images_needed=images_needed)
    data = annotations.read(*found, images_needed=images_needed, strict=strict)
    typer.echo(f"{split}: {data.summary()}")
    if results is None:
        return data
    rows = read_results(results, data)
    tell_about(results, rows, data)
    return replace(data, given=rows)


def tell_about(results: Path, rows: Rows, data: CocoData) -> None:
    """Prints how much a results file holds, and a warning where its scores begin too high."""
    without = len(data.images) - len(np.unique(rows[:, 0]))
    typer.echo(f"{results}: {len(rows):,} detections; {without:,} of {len(data.images):,} images have none")
    if len(rows) and rows[:, 5].min() > HIGH:
        typer.echo(
            f"{results}: the lowest score is {rows[:, 5].min():.2f}; AP counts detections of low scores too, so let "
            "the detector write all above 0.05 or less",
            err=True,
        )


def image_data(folder: Path, annotations_file: Path | None, categories: dict[int, str]) -> CocoData:
    """The images of a folder and all below it, or those of an annotation file.

    Raises:
        FileNotFoundError: there is no such folder, or no image in it.
    """
    if annotations_file is not None:
        return annotations.read(annotations_file, folder, strict=False)
    if not folder.is_dir():
        raise FileNotFoundError(f"no folder at {folder}; check the path")
    files = sorted(path.relative_to(folder) for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)
    if not files:
        raise FileNotFoundError(f"{folder} holds no images; expected files that end in {', '.join(sorted(SUFFIXES))}")
    return replace(image_files(files, folder), categories=categories)


def check_output_file(*paths: Path | None) -> None:
    """Raises OSError where a file cannot be written; found out before the work, not after it."""
    for path in filter(None, paths):
        if path.is_dir():
            raise IsADirectoryError(f"{path} is a folder; name a file to write")
        check_output_folder(path.parent)


def check_output_folder(path: Path) -> None:
    """Raises NotADirectoryError where the folder is a file."""
    if path.exists() and not path.is_dir():
        raise NotADirectoryError(f"{path} is a file; name a folder")
