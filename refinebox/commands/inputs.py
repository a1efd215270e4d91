"""What the command line names, opened: detectors, data, and places to write to."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from refinebox.data import annotations, layout
from refinebox.data import split as splitting
from refinebox.data.annotations import CocoData
from refinebox.data.frames import Reading
from refinebox.data.layout import Split
from refinebox.data.results_file import Rows
from refinebox.data.tally import Tally
from refinebox.detection.prompt import phrases_in
from refinebox.evaluation.results import read_results

if TYPE_CHECKING:  # a results file is analysed without torch
    from refinebox.detection.detector import Detector

HIGH = 0.3  # a lowest score above this costs AP


def load(
    name: str | None,
    weights: Path | None,
    device: str,
    short_side: int | None = None,
    long_side: int | None = None,
    *,
    ema: bool | None = None,
    results: Path | None = None,
    features: str | None = None,
    prompt: str | None = None,
) -> "Detector":
    """The detector, or upgraded checkpoint, on its device; ``auto`` is the GPU where there is one.

    ``results`` has the boxes that it takes; ``features`` stands for a detector that takes some; ``prompt`` is what it
    is to look for.
    """
    from refinebox import distributed
    from refinebox.refinement.upgraded import open_model

    distributed.start(device)
    with distributed.first_alone():  # what one has downloaded the others find
        detector = open_model(name, weights, ema, features)
    if results is not None:
        detector.take(results)
    if prompt is not None:
        detector.ask(phrases_in(prompt))
    detector.resize(short_side, long_side)
    return distributed.placed(detector, device)


def read_split(
    split: Split,
    *named: Path | None,
    images_needed: bool = True,
    strict: bool = True,
    boxes: Reading | None = None,
    results: Path | None = None,
    given: Mapping[str, Path | None] | None = None,
) -> CocoData:
    """A checked data set, of which it prints a summary; arguments as in :mod:`refinebox.data.annotations`.

    ``results`` are detections in it, for a detector that takes boxes; ``given`` are those of each split.
    """
    found = layout.locate(split, *named, images_needed=images_needed)
    if split == "val" and named[0] and layout.says(found[0].relative_to(named[0]), "test"):
        typer.echo(f"val: the test images stand in, {found[0]}")
    data = annotations.read(*found, images_needed=images_needed, strict=strict, boxes=boxes)
    typer.echo(f"{split}: {data.summary()}")
    results = (given or {}).get(split, results)
    if results is None:
        return data
    tally = Tally()
    rows = read_results(results, data, boxes=boxes, tally=tally)
    tell_about(results, rows, tally)
    return replace(data, given=rows)


def tell_about(results: Path, rows: Rows, tally: Tally) -> None:
    """Prints how much a results file holds and what is odd about it, and a warning where its scores begin too high."""
    typer.echo(f"{results}: {len(rows):,} detections")
    for line in tally.lines(results.name):
        typer.echo(line)
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
    from refinebox.detection.given import image_files
    from refinebox.report.predictions import find_images

    if annotations_file is not None:
        return annotations.read(annotations_file, folder, strict=False)
    if not folder.is_dir():
        raise FileNotFoundError(f"no folder at {folder}; check the path")
    files = [path.relative_to(folder) for path in find_images([folder], recursive=True)]
    return replace(image_files(files, folder), categories=categories)


def training_splits(
    read: Callable[..., CocoData],
    training: tuple[Path | None, ...],
    validation: tuple[Path | None, ...],
    fraction: float,
    seed: int,
) -> tuple[CocoData, CocoData]:
    """What to train on and what to validate on, said where both are the same.

    Args:
        read: :func:`read_split`.
        training, validation: what is named of each.
        fraction: the share of the training images that is kept for validation where nothing else is named for it.
        seed: which images that is.

    Raises:
        FileNotFoundError, ValueError: as :func:`read_split`, with the way on where only the validation images lack.
    """
    data = read("train", *training)
    if fraction:
        if any(validation[1:]):
            raise ValueError("--val-fraction takes validation images from the training images; leave out --val-...")
        kept = splitting.split(data, fraction, seed)
        typer.echo(f"val: {kept[1].summary()}, kept out of the training images by seed {seed}")
        return kept
    try:
        other = read("val", *validation)
    except (FileNotFoundError, ValueError) as error:
        if any(validation[1:]):
            raise
        raise type(error)(f"{error}; or keep some training images for it: --val-fraction 0.1") from error
    same = splitting.common(data, other)
    if same:
        typer.echo(
            f"val: {same} of its {len(other.images)} images are training images too, so AP on them says little about "
            "others; --val-fraction 0.1 keeps a tenth of the training images for it"
        )
    return data, other
