"""Detections that cannot belong to the objects, and why."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from random_boxes import worse

from refinebox.data.annotations import CocoData
from refinebox.evaluation.plausibility import mistakes
from refinebox.evaluation.rows import Rows

SIZE = 192, 160  # of the generated images


@pytest.fixture
def rows(validation: CocoData) -> Rows:
    found = worse(validation, shift=0.02)
    return np.array([[e["image_id"], *e["bbox"], e["score"], e["category_id"]] for e in found])


def changed(rows: Rows, change: Callable[[Rows], None]) -> Rows:
    copy = rows.copy()
    change(copy)
    return copy


def corners(rows: Rows) -> None:
    rows[:, 3:5] += rows[:, 1:3]


def centres(rows: Rows) -> None:
    rows[:, 1:3] += rows[:, 3:5] / 2


def fractions(rows: Rows) -> None:
    rows[:, 1:5] /= np.tile(SIZE, 2)


def stretched(rows: Rows) -> None:
    rows[:, 1:5] *= np.tile([640 / SIZE[0], 640 / SIZE[1]], 2)


def longest(rows: Rows) -> None:
    rows[:, 1:5] *= 1333 / SIZE[0]


def centred(rows: Rows) -> None:
    rows[:, 1:5] *= 640 / SIZE[0]
    rows[:, 2] += (640 - SIZE[1] * 640 / SIZE[0]) / 2


def test_good_detections_are_plausible(rows: Rows, validation: CocoData) -> None:
    assert mistakes(rows, validation) == []


@pytest.mark.parametrize(
    ("change", "expected", "reading"),
    [
        (corners, "the boxes of the detections look like corners", "xyxy"),
        (centres, "the boxes of the detections look like centres and sides", "cxcywh"),
        (fractions, "the boxes of the detections look like fractions of the image", "xywhn"),
        (stretched, "the boxes look like pixels of images stretched to 640 × 640", ""),
        (longest, "the boxes look like pixels of images with a longest side of 1333", ""),
        (centred, "the boxes look like pixels of images centred in 640 × 640", ""),
    ],
)
def test_boxes_in_another_frame_are_named(
    change: Callable[[Rows], None], expected: str, reading: str, rows: Rows, validation: CocoData
) -> None:
    [mistake] = mistakes(changed(rows, change), validation)
    assert (mistake.kind, mistake.reading) == ("boxes", reading)
    assert mistake.sentence.startswith(expected)


def test_objects_in_another_frame_are_named(rows: Rows, validation: CocoData) -> None:
    moved = [
        {
            **entry,
            "bbox": [
                entry["bbox"][0] + entry["bbox"][2] / 2,
                entry["bbox"][1] + entry["bbox"][3] / 2,
                *entry["bbox"][2:],
            ],
        }
        for entry in validation.annotations
    ]
    [mistake] = mistakes(rows, replace(validation, annotations=moved))
    assert mistake.sentence.startswith("the objects' boxes look like centres and sides")


@pytest.mark.parametrize(("step", "expected"), [(-1, "too low"), (1, "too high")])
def test_shifted_categories_are_named(step: int, expected: str, rows: Rows, validation: CocoData) -> None:
    wider = replace(validation, categories={0: "nothing", **validation.categories, 7: "more"})
    shifted = rows.copy()
    shifted[:, 6] += step
    [mistake] = mistakes(shifted, wider)
    assert mistake.kind == "categories"
    assert f"category ids look shifted by one, {expected}: " in mistake.sentence
    assert "0% as they stand" in mistake.sentence


def test_images_counted_otherwise_are_named(rows: Rows, validation: CocoData) -> None:
    order = {number: place for place, number in enumerate([3, 1, 4, 2], start=1)}
    other = replace(validation, images=sorted(validation.images, key=lambda entry: order[entry["id"]]))
    placed = rows.copy()
    placed[:, 0] = [order[int(number)] for number in rows[:, 0]]
    [mistake] = mistakes(placed, other)
    assert mistake.sentence.startswith("image ids look like places in the list of images, from 1")


def test_detections_of_something_else_are_doubted(rows: Rows, validation: CocoData) -> None:
    random = np.random.default_rng(0)
    nonsense = rows.copy()
    nonsense[:, 1:5] = random.uniform(0, 9, (len(rows), 4))
    [mistake] = mistakes(nonsense, validation)
    assert mistake.sentence.startswith(
        "only 0% of the best detections lie on an object: other images, boxes in another"
    )


def test_nothing_is_said_of_few(rows: Rows, validation: CocoData) -> None:
    assert mistakes(changed(rows, corners)[:5], validation) == []
    assert mistakes(np.empty((0, 7)), validation) == []
    assert mistakes(rows, replace(validation, annotations=[])) == []
