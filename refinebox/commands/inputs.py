"""What the command line names, opened: detectors, data, and places to write to."""

from pathlib import Path
from typing import Literal

import typer

from refinebox import distributed
from refinebox.data import annotations, layout
from refinebox.data.annotations import CocoData
from refinebox.detection.detector import Detector
from refinebox.refinement.upgraded import open_model


def load(
    name: str, weights: Path | None, device: str, short_side: int | None = None, long_side: int | None = None
) -> Detector:
    """The detector, or upgraded checkpoint, on its device; ``auto`` is the GPU where there is one."""
    place = distributed.start(device)
    with distributed.first_alone():  # what one has downloaded the others find
        detector = open_model(name, weights)
    detector.resize(short_side, long_side)
    try:
        return detector.to(place)
    except (RuntimeError, AssertionError) as error:  # torch raises the second for what it was not built with
        raise distributed.no_device(device, error) from error


def read_split(
    split: Literal["train", "val"], *named: Path | None, images_needed: bool = True, strict: bool = True
) -> CocoData:
    """A checked data set, of which it prints a summary; arguments as in :mod:`refinebox.data.annotations`."""
    found = layout.locate(split, *named, images_needed=images_needed)
    data = annotations.read(*found, images_needed=images_needed, strict=strict)
    typer.echo(f"{split}: {data.summary()}")
    return data


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
