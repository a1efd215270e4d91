"""Validation images kept out of the training images."""

from dataclasses import replace
from pathlib import Path

import pytest

from refinebox.data.annotations import CocoData
from refinebox.data.split import common, split


def test_a_fraction_of_the_images_is_kept(training: CocoData) -> None:
    kept, validation = split(training, 0.34, seed=1)
    assert (len(kept.images), len(validation.images)) == (4, 2)
    assert {entry["id"] for entry in kept.images} | {entry["id"] for entry in validation.images} == set(range(1, 7))
    for part in (kept, validation):
        assert {entry["image_id"] for entry in part.annotations} <= {entry["id"] for entry in part.images}
    assert len(kept.annotations) + len(validation.annotations) == len(training.annotations)


def test_the_seed_decides_which(training: CocoData) -> None:
    chosen = [tuple(entry["id"] for entry in split(training, 0.5, seed)[1].images) for seed in range(8)]
    assert split(training, 0.5, 3)[1].images == split(training, 0.5, 3)[1].images
    assert len(set(chosen)) > 1


def test_one_image_at_least_is_kept_and_one_is_left(training: CocoData) -> None:
    assert len(split(training, 0.01)[1].images) == 1
    alone = replace(training, images=training.images[:1])
    with pytest.raises(ValueError, match="1 of 1 images for validation leave none to train on"):
        split(alone, 0.1)


def test_common_images_are_the_same_files(training: CocoData, validation: CocoData, tmp_path: Path) -> None:
    assert common(training, training) == 6
    assert common(training, validation) == 0  # of equal names in another folder
    assert common(training, replace(training, images=training.images[2:])) == 4
