"""Training and validation images of one data set, and whether two are the same."""

import random
from dataclasses import replace

from refinebox.data.annotations import CocoData


def split(data: CocoData, fraction: float, seed: int = 0) -> tuple[CocoData, CocoData]:
    """(training, validation) of one data set: a ``fraction`` of its images is kept for validation, the seed says which.

    Raises:
        ValueError: one of the two would be empty.
    """
    images = [entry["id"] for entry in data.images]
    random.Random(f"split {seed}").shuffle(images)
    count = max(1, round(fraction * len(images)))
    if count >= len(images):
        raise ValueError(f"{count} of {len(images)} images for validation leave none to train on; name other images")
    kept = set(images[:count])
    return of_images(data, set(images) - kept), of_images(data, kept)


def of_images(data: CocoData, ids: set[int]) -> CocoData:
    """The images with these ids, and what is annotated in them; without the notes, which were about all of them."""
    images = [entry for entry in data.images if entry["id"] in ids]
    annotations = [entry for entry in data.annotations if entry["image_id"] in ids]
    return replace(data, images=images, annotations=annotations, notes={})


def common(data: CocoData, other: CocoData) -> int:
    """How many images of ``other`` are files that ``data`` has too."""
    files = {data.folder.resolve() / entry["file_name"] for entry in data.images}
    return sum(other.folder.resolve() / entry["file_name"] in files for entry in other.images)
