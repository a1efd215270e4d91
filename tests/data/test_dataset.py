"""Samples of annotated images: boxes, augmentation, and images that cannot be read."""

from pathlib import Path

import numpy as np
import pytest
import torch
from coco_files import FORM, annotation, assert_same, dataset, read, write_images
from PIL import Image
from torch import Tensor
from torchvision.ops import box_convert

from refinebox.data import batches
from refinebox.data.annotations import CocoData
from refinebox.data.batches import Sample
from refinebox.data.dataset import Augmentation
from refinebox.data.input_format import InputFormat


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_images(tmp_path)
    return tmp_path


def differs(sample: Sample, other: Sample) -> bool:
    return sample[0].shape != other[0].shape or not torch.equal(sample[0], other[0])


def test_a_sample_worked_out_by_hand(folder: Path) -> None:
    annotations = [annotation(1), annotation(2, category_id=7, bbox=[0, 0, 60, 40])]
    image, target, original, image_id, _ = dataset(read(folder, annotations=annotations))[0]
    torch.testing.assert_close(target.boxes, torch.tensor([[0.35, 0.35, 0.5, 0.5], [0.5, 0.5, 1, 1]]))
    assert target.columns.tolist() == [0, 1]
    assert (original, image_id) == ((40, 60), 1)
    with Image.open(folder / "1.png") as file:
        assert torch.equal(image, FORM.pixels(file))


def test_boxes_are_clipped_to_the_image(folder: Path) -> None:
    found = read(folder, annotations=[annotation(bbox=[-10.5, 20, 40.5, 50])])
    torch.testing.assert_close(dataset(found)[0][1].boxes, torch.tensor([[0.25, 0.75, 0.5, 0.5]]))


def test_boxes_outside_the_image_are_left_out(folder: Path) -> None:
    found = read(folder, annotations=[annotation(1, bbox=[70, 5, 10, 10]), annotation(2, category_id=7)])
    target = dataset(found)[0][1]
    assert target.boxes.shape == (1, 4)
    assert target.columns.tolist() == [1]


def test_crowd_regions_are_not_trained_on(folder: Path) -> None:
    found = read(folder, annotations=[annotation(1, iscrowd=1), annotation(2, category_id=7)])
    assert dataset(found)[0][1].columns.tolist() == [1]


def test_images_without_objects_have_empty_targets(folder: Path) -> None:
    target = dataset(read(folder))[1][1]
    assert target.boxes.shape == (0, 4)
    assert target.columns.shape == (0,)
    assert target.columns.dtype == torch.int64


@pytest.mark.parametrize(("keep_empty", "expected"), [(True, [1, 2]), (False, [1])])
def test_images_without_objects_are_kept_for_evaluation_alone(
    keep_empty: bool, expected: list[int], folder: Path
) -> None:
    samples = dataset(read(folder), keep_empty=keep_empty)
    assert [samples[index][3] for index in range(len(samples))] == expected


def test_images_with_nothing_but_crowds_are_not_trained_on(folder: Path) -> None:
    annotations = [annotation(1), annotation(2, image_id=2, iscrowd=1)]
    assert len(dataset(read(folder, annotations=annotations), keep_empty=False)) == 1


def test_an_unreadable_image_is_named(folder: Path) -> None:
    found = read(folder)
    (folder / "1.png").write_bytes(b"")
    with pytest.raises(ValueError, match=r"1\.png is not a readable image"):
        dataset(found)[0]


def test_an_unreadable_image_is_left_out_where_that_is_wished(folder: Path) -> None:
    samples = dataset(read(folder))
    kept = batches.collate([samples[1]], FORM)
    (folder / "1.png").write_bytes(b"")
    samples.strict = False
    batch = batches.collate([samples[0], samples[1]], FORM)
    assert batch.image_ids == [2]
    assert [reason.partition(": ")[0] for reason in batch.unreadable] == [f"{folder / '1.png'} is not a readable image"]
    assert torch.equal(batch.images, kept.images)
    assert torch.equal(batch.original_sizes, kept.original_sizes)
    assert batch.to(torch.device("cpu")).unreadable == batch.unreadable


def test_a_batch_of_unreadable_images_is_empty(folder: Path) -> None:
    samples = dataset(read(folder))
    samples.strict = False
    for path in folder.glob("*.png"):
        path.unlink()
    batch = batches.collate([samples[0], samples[1]], FORM).to(torch.device("cpu"))
    assert batch.unreadable == [f"{folder / '1.png'} is not there", f"{folder / '2.png'} is not there"]
    assert (len(batch.images), batch.sizes.shape, batch.original_sizes.shape) == (0, (0, 2), (0, 2))
    assert (batch.targets, batch.image_ids) == ([], [])


def test_a_flip_mirrors_image_and_boxes(folder: Path) -> None:
    found = read(folder)
    plain, flipping = dataset(found)[0], dataset(found, augmentation="flip")
    with Image.open(folder / "1.png") as file:
        mirrored = FORM.pixels(file.transpose(Image.Transpose.FLIP_LEFT_RIGHT))
    flips = []
    for flipping.variant in range(20):
        image, target, *_ = flipping[0]
        flips.append(differs(flipping[0], plain))
        torch.testing.assert_close(image, mirrored if flips[-1] else plain[0], rtol=0, atol=0)
        expected = torch.tensor([[0.65 if flips[-1] else 0.35, 0.35, 0.5, 0.5]])
        torch.testing.assert_close(target.boxes, expected)
    assert 0 < sum(flips) < 20


def test_an_augmented_sample_depends_on_seed_and_epoch_alone(folder: Path) -> None:
    found = read(folder)
    first, second = (dataset(found, augmentation="multiscale", seed=3) for _ in range(2))
    assert_same(first[0], second[0])
    second.variant = 5
    assert differs(first[0], second[0])
    first.variant = 5
    assert_same(first[0], second[0])


def test_another_epoch_gives_other_samples(folder: Path) -> None:
    samples = dataset(read(folder), augmentation="multiscale")
    first = samples[0]
    epochs = []
    for samples.variant in range(1, 6):
        epochs.append(differs(samples[0], first))
    assert any(epochs)


def test_another_seed_gives_other_samples(folder: Path) -> None:
    found = read(folder)
    first = dataset(found, augmentation="multiscale", seed=0)[0]
    assert any(differs(dataset(found, augmentation="multiscale", seed=seed)[0], first) for seed in range(1, 6))


def test_multiscale_sizes_are_those_of_detr_in_proportion(folder: Path) -> None:
    samples = dataset(read(folder), augmentation="multiscale", form=InputFormat(short_side=80, long_side=400))
    sides = set()
    for samples.variant in range(60):
        sides.add(min(samples[0][0].shape[-2:]))
    assert sides == {round(side / 10) for side in range(480, 801, 32)}


@pytest.mark.parametrize(
    ("augmentation", "expected"), [("none", {False}), ("flip", {False, True}), ("multiscale", {False, True})]
)
def test_flips_are_part_of_augmentation(augmentation: Augmentation, expected: set[bool], folder: Path) -> None:
    brightness = np.tile(np.arange(60, dtype=np.uint8) * 4, (40, 1))
    Image.fromarray(brightness).save(folder / "1.png")
    samples = dataset(read(folder), augmentation=augmentation)
    flips = set()
    for samples.variant in range(20):
        image = samples[0][0]
        flips.add(bool(image[0, 0, 0] > image[0, 0, -1]))
    assert flips == expected


def test_augmented_boxes_stay_within_the_image(folder: Path) -> None:
    annotations = [annotation(number, bbox=[5 * number, 3 * number, 20, 15]) for number in range(1, 9)]
    samples = dataset(read(folder, annotations=annotations), augmentation="multiscale")
    counts = set()
    for samples.variant in range(40):
        target = samples[0][1]
        corners = box_convert(target.boxes, "cxcywh", "xyxy")
        assert corners.min() >= -1e-6
        assert corners.max() <= 1 + 1e-6
        assert target.boxes[:, 2:].min() > 0
        assert len(target.boxes) == len(target.columns)
        counts.add(len(target.boxes))
    assert max(counts) == 8
    assert min(counts) < 8


def painted(folder: Path) -> CocoData:
    """One black image with a white object that its box fits."""
    pixels = np.zeros((90, 120, 3), dtype=np.uint8)
    pixels[30:70, 40:90] = 255
    Image.fromarray(pixels).save(folder / "1.png")
    image = {"id": 1, "file_name": "1.png", "height": 90, "width": 120}
    return read(folder, images=[image], annotations=[annotation(bbox=[40, 30, 50, 40])])


def bright_box(image: Tensor) -> Tensor:
    rows, columns = (image[0] > 0).nonzero(as_tuple=True)
    return torch.stack([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]).float()


@pytest.mark.parametrize("augmentation", ["none", "flip", "multiscale"])
def test_augmented_boxes_stay_on_their_objects(augmentation: Augmentation, folder: Path) -> None:
    samples = dataset(painted(folder), augmentation=augmentation, form=InputFormat(short_side=200, long_side=1000))
    for samples.variant in range(20):
        image, target, *_ = samples[0]
        assert len(target.boxes) == 1
        height, width = image.shape[-2:]
        corners = box_convert(target.boxes[0], "cxcywh", "xyxy") * torch.tensor([width, height, width, height])
        torch.testing.assert_close(corners, bright_box(image), rtol=0, atol=4)
