"""What the command line names, opened: detectors, data, and places to write to."""

from pathlib import Path
from typing import Literal

import typer

from refinebox import data, distributed
from refinebox.apply import open_model
from refinebox.data import CocoData
from refinebox.detector import Detector


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
    split: Literal["train", "val"], root: Path | None, annotations: Path | None, images: Path | None, files: bool = True
) -> CocoData:
    """A checked data set: ``annotations`` and ``images``, or the split of the folder ``root``; says what is in it."""
    if annotations is not None and (images is not None or not files):
        found = annotations, images or annotations.parent
    elif root is not None and annotations is None and images is None:
        found = data.find(root, split)
    else:
        raise ValueError(
            f"the {split} images are not named: pass --data DIR, or both the annotation file and the image folder"
        )
    content = data.read(*found, images_needed=files)
    typer.echo(f"{split}: {content.summary()}")
    return content


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
