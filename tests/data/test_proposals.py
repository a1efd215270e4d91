"""Boxes from elsewhere: rows to queries, and queries along with their augmented images."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from coco_files import FORM, annotation, dataset, read, write_images
from PIL import Image
from torch import Tensor
from torchvision.ops import box_convert

from refinebox.data import batches
from refinebox.data.annotations import CocoData
from refinebox.data.dataset import Augmentation
from refinebox.data.input_format import InputFormat
from refinebox.data.proposals import Proposals, RowsByImage

ROWS = np.array(
    [
        [3, 10, 20, 30, 40, 0.9, 7],
        [5, 1, 2, 3, 4, 0.0, 2],
        [3, 10, 20, 30, 40, 0.5, 2],
        [3, 11, 20, 30, 40, 0.8, 7],
        [3, 10, 20, 30, 40, 0.4, 7],
        [3, 10, 20, 30, 40, 0.3, 2],
    ],
    dtype=np.float64,
)
FOUND = RowsByImage(ROWS, [3, 4, 5], {2: 0, 7: 1}, 2)


def test_rows_of_one_box_are_one_query_unless_their_label_is_there_already() -> None:
    torch.testing.assert_close(
        FOUND[3].boxes, torch.tensor([[10, 20, 40, 60], [11, 20, 41, 60], [10, 20, 40, 60]]).float()
    )
    torch.testing.assert_close(FOUND[3].scores, torch.tensor([[0.5, 0.9], [0, 0.8], [0.3, 0.4]]))
    assert FOUND.queries(FOUND.places(3)).tolist() == [0, 0, 1, 2, 2]
    assert FOUND.places(3).tolist() == [0, 2, 3, 4, 5]


def test_a_score_of_0_is_still_a_detection() -> None:
    assert 0 < FOUND[5].scores[0, 0] < 1e-6
    assert FOUND[5].scores[0, 1] == 0


def test_images_without_rows_have_no_queries() -> None:
    assert FOUND[4].boxes.shape == (0, 4)
    assert FOUND[4].scores.shape == (0, 2)
    assert list(FOUND) == [3, 4, 5]
    batch = Proposals.of([Proposals(FOUND[image].boxes, FOUND[image].scores) for image in (4, 3)])
    assert batch.boxes.shape == (2, 3, 4)
    assert batch.scores[0].sum() == 0


def test_fractions_are_of_the_whole_image() -> None:
    given = FOUND[5].within(10, 20)
    torch.testing.assert_close(given.boxes, torch.tensor([[[0.125, 0.4, 0.15, 0.4]]]))


@pytest.mark.parametrize("score", [-0.1, 1.5])
def test_scores_are_probabilities(score: float) -> None:
    rows = ROWS.copy()
    rows[1, 5] = score
    with pytest.raises(ValueError, match=rf"^the score of a detection is {score:g}; expected scores between 0 and 1"):
        RowsByImage(rows, [3, 4, 5], {2: 0, 7: 1}, 2)


def test_unknown_labels_are_told() -> None:
    with pytest.raises(ValueError, match=r"^detections have labels 7, which are none of the 1 categories; known are"):
        RowsByImage(ROWS, [3, 4, 5], {2: 0}, 1)


def painted(folder: Path) -> CocoData:
    """One black image with a white object, which is annotated 7 pixels too small all around."""
    pixels = np.zeros((90, 120, 3), dtype=np.uint8)
    pixels[30:70, 40:90] = 255
    Image.fromarray(pixels).save(folder / "1.png")
    image = {"id": 1, "file_name": "1.png", "height": 90, "width": 120}
    return read(folder, images=[image], annotations=[annotation(bbox=[47, 37, 36, 26])])


def bright_box(image: Tensor) -> Tensor:
    rows, columns = (image[0] > 0).nonzero(as_tuple=True)
    return torch.stack([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]).float()


@pytest.mark.parametrize("augmentation", ["none", "flip", "multiscale"])
@pytest.mark.parametrize(
    "form",
    [
        InputFormat(short_side=200, long_side=1000),
        InputFormat("stretch", height=160, width=240),
        InputFormat("letterbox", height=192, width=192),
    ],
    ids=["shortest", "stretch", "letterbox"],
)
def test_augmented_proposals_stay_where_they_are_in_the_picture(
    augmentation: Augmentation, form: InputFormat, tmp_path: Path
) -> None:
    rows = np.array([[1, 40, 30, 50, 40, 0.75, 7]], dtype=np.float64)  # the white object
    proposals = RowsByImage(rows, [1], {3: 0, 7: 1}, 2)
    samples = dataset(painted(tmp_path), augmentation=augmentation, form=form, proposals=proposals)
    sizes = set()
    for samples.variant in range(20):
        image, target, _, _, given = samples[0]
        assert given is not None
        assert given.scores.tolist() == [[0, 0.75]]
        height, width = image.shape[-2:]
        corners = box_convert(given.boxes[0], "cxcywh", "xyxy") * torch.tensor([width, height, width, height])
        torch.testing.assert_close(corners, bright_box(image), rtol=0, atol=4)
        assert len(target.boxes) == 1
        sizes.add(tuple(bright_box(image).tolist()))
    assert len(sizes) > (1 if augmentation != "none" else 0)


def test_what_is_cut_off_is_gone_and_the_rest_stays(tmp_path: Path) -> None:
    write_images(tmp_path)
    data = read(tmp_path)
    rows = np.array([[1, 5, 5, 0, 10, 0.5, 7], [1, 70, 5, 10, 10, 0.6, 7], [1, -5, 5, 30, 10, 0.7, 7]])
    proposals = RowsByImage(rows, [entry["id"] for entry in data.images], {3: 0, 7: 1}, 2)
    plain = dataset(data, proposals=proposals)[0][4]
    assert plain is not None
    # without area, outside, and partly outside: a detection all the same, and not clipped
    torch.testing.assert_close(
        box_convert(plain.boxes, "cxcywh", "xyxy") * torch.tensor([60.0, 40, 60, 40]),
        torch.tensor([[5.0, 5, 5, 15], [70, 5, 80, 15], [-5, 5, 25, 15]]),
    )
    cropped = dataset(data, augmentation="multiscale", proposals=proposals)
    counts = set()
    for cropped.variant in range(20):
        given = cropped[0][4]
        assert given is not None
        assert len(given.boxes) == len(given.scores)
        counts.add(len(given.boxes))
    assert counts == {1, 3} or counts == {0, 1, 3}


def test_a_batch_has_the_proposals_of_its_images(tmp_path: Path) -> None:
    write_images(tmp_path)
    data = read(tmp_path)
    rows = np.array([[2, 5, 5, 10, 10, 0.5, 7], [2, 6, 5, 10, 10, 0.6, 7]], dtype=np.float64)
    samples = dataset(data, proposals=RowsByImage(rows, [1, 2], {3: 0, 7: 1}, 2))
    batch = batches.collate([samples[0], samples[1]], FORM).to(torch.device("cpu"))
    assert batch.proposals is not None
    torch.testing.assert_close(batch.proposals.scores, torch.tensor([[[0, 0.0], [0, 0]], [[0, 0.5], [0, 0.6]]]))
    assert batches.collate([dataset(data)[0]], FORM).proposals is None
    assert replace(data, given=rows) == data
