from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from coco_files import COLUMNS, annotation, read, write_images
from PIL import Image
from torch import Tensor
from torchvision.ops import box_convert

from refinebox.data import batches
from refinebox.data.batches import Batch, CocoData, CocoDataset, Sample, Target
from refinebox.data.images import preprocess, to_pixels


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_images(tmp_path)
    return tmp_path


def dataset(found: CocoData, **options: Any) -> CocoDataset:
    return CocoDataset(found, COLUMNS, **{"short_side": 32, "long_side": 100, **options})


def assert_same(sample: Sample, other: Sample) -> None:
    torch.testing.assert_close(sample[0], other[0], rtol=0, atol=0)
    assert_same_target(sample[1], other[1])
    assert sample[2:] == other[2:]


def assert_same_target(target: Target, other: Target) -> None:
    torch.testing.assert_close(target.boxes, other.boxes, rtol=0, atol=0)
    torch.testing.assert_close(target.columns, other.columns, rtol=0, atol=0)


def differs(sample: Sample, other: Sample) -> bool:
    return sample[0].shape != other[0].shape or not torch.equal(sample[0], other[0])


def test_a_sample_worked_out_by_hand(folder: Path) -> None:
    annotations = [annotation(1), annotation(2, category_id=7, bbox=[0, 0, 60, 40])]
    image, target, original, image_id = dataset(read(folder, annotations=annotations))[0]
    torch.testing.assert_close(target.boxes, torch.tensor([[0.35, 0.35, 0.5, 0.5], [0.5, 0.5, 1, 1]]))
    assert target.columns.tolist() == [0, 1]
    assert (original, image_id) == ((40, 60), 1)
    with Image.open(folder / "1.png") as file:
        assert torch.equal(image, to_pixels(file, 32, 100))


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
    kept = batches.collate([samples[1]])
    (folder / "1.png").write_bytes(b"")
    samples.strict = False
    batch = batches.collate([samples[0], samples[1]])
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
    batch = batches.collate([samples[0], samples[1]]).to(torch.device("cpu"))
    assert batch.unreadable == [f"{folder / '1.png'} is not there", f"{folder / '2.png'} is not there"]
    assert (len(batch.images), batch.sizes.shape, batch.original_sizes.shape) == (0, (0, 2), (0, 2))
    assert (batch.targets, batch.image_ids) == ([], [])


def test_a_flip_mirrors_image_and_boxes(folder: Path) -> None:
    found = read(folder)
    plain, flipping = dataset(found)[0], dataset(found, augmentation="flip")
    with Image.open(folder / "1.png") as file:
        mirrored = to_pixels(file.transpose(Image.Transpose.FLIP_LEFT_RIGHT), 32, 100)
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
    samples = dataset(read(folder), augmentation="multiscale", short_side=80, long_side=400)
    sides = set()
    for samples.variant in range(60):
        sides.add(min(samples[0][0].shape[-2:]))
    assert sides == {round(side / 10) for side in range(480, 801, 32)}


@pytest.mark.parametrize(
    ("augmentation", "expected"), [("none", {False}), ("flip", {False, True}), ("multiscale", {False, True})]
)
def test_flips_are_part_of_augmentation(augmentation: batches.Augmentation, expected: set[bool], folder: Path) -> None:
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
def test_augmented_boxes_stay_on_their_objects(augmentation: batches.Augmentation, folder: Path) -> None:
    samples = dataset(painted(folder), augmentation=augmentation, short_side=200, long_side=1000)
    for samples.variant in range(20):
        image, target, *_ = samples[0]
        assert len(target.boxes) == 1
        height, width = image.shape[-2:]
        corners = box_convert(target.boxes[0], "cxcywh", "xyxy") * torch.tensor([width, height, width, height])
        torch.testing.assert_close(corners, bright_box(image), rtol=0, atol=4)


def test_a_batch_holds_what_its_samples_hold(folder: Path) -> None:
    samples = dataset(read(folder))
    batch = batches.collate([samples[0], samples[1]])
    assert batch.images.shape == (2, 3, 48, 48)
    assert batch.sizes.tolist() == [[32, 48], [48, 32]]
    assert batch.original_sizes.tolist() == [[40, 60], [60, 40]]
    assert batch.image_ids == [1, 2]
    torch.testing.assert_close(batch.images[1, :, :48, :32], samples[1][0], rtol=0, atol=0)
    for target, sample in zip(batch.targets, (samples[0], samples[1]), strict=True):
        assert_same_target(target, sample[1])


def test_a_batch_is_normalised_on_its_way_to_the_device(folder: Path) -> None:
    samples = dataset(read(folder))
    batch = batches.collate([samples[0], samples[1]])
    assert batch.images.dtype == torch.uint8
    moved = batch.to(torch.device("cpu"))
    expected = torch.zeros(2, 3, 48, 48)  # padding is zero, as mean pixels are
    for number, (height, width) in enumerate(((32, 48), (48, 32)), start=1):
        with Image.open(folder / f"{number}.png") as file:
            expected[number - 1, :, :height, :width] = preprocess(file, 32, 100)
    assert torch.equal(moved.images, expected)
    assert torch.equal(moved.to(torch.device("cpu")).images, expected)  # once and for all
    assert moved.sizes.tolist() == batch.sizes.tolist()


def test_batches_are_pinned_for_cuda_alone(folder: Path) -> None:
    samples = dataset(read(folder))
    devices = None, torch.device("cpu"), torch.device("cuda", 1)
    assert [batches.loaded(samples, [[0]], 0, device).pin_memory for device in devices] == [False, False, True]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="memory can be pinned where there is a GPU")
def test_a_loaded_batch_is_in_pinned_memory(folder: Path) -> None:
    batch = next(iter(batches.loaded(dataset(read(folder)), [[0, 1]], 0, torch.device("cuda"))))
    assert batch.images.is_pinned()
    assert batch.to(torch.device("cuda")).images.dtype == torch.float32


def test_a_batch_moves_to_a_device_as_a_whole(folder: Path) -> None:
    samples = dataset(read(folder))
    batch = batches.collate([samples[0], samples[1]]).to(torch.device("meta"))
    tensors = [batch.images, batch.sizes, batch.original_sizes]
    tensors += [tensor for target in batch.targets for tensor in (target.boxes, target.columns)]
    assert {tensor.device.type for tensor in tensors} == {"meta"}
    assert batch.image_ids == [1, 2]


def image_ids(batches: Iterable[Batch]) -> list[list[int]]:
    return [batch.image_ids for batch in batches]


def test_batches_come_in_the_order_of_the_file(training: CocoData) -> None:
    columns = {category_id: column for column, category_id in enumerate(training.categories)}
    loader = batches.loaded(CocoDataset(training, columns, short_side=32), batches.cut(range(6), 4))
    assert image_ids(loader) == [[1, 2, 3, 4], [5, 6]]
    assert len(loader) == 2


def test_batches_come_in_the_order_that_is_asked_for(training: CocoData) -> None:
    columns = {category_id: column for column, category_id in enumerate(training.categories)}
    loader = batches.loaded(CocoDataset(training, columns, short_side=32), batches.cut([4, 0, 2], 2))
    assert image_ids(loader) == [[5, 1], [3]]


@pytest.mark.filterwarnings("ignore:.*use of fork.*:DeprecationWarning")
def test_workers_do_not_change_the_batches(folder: Path) -> None:
    samples = dataset(read(folder), augmentation="multiscale")
    samples.variant = 3
    alone, helped = (list(batches.loaded(samples, batches.cut(range(len(samples)), 1), workers)) for workers in (0, 1))
    assert image_ids(alone) == image_ids(helped) == [[1], [2]]
    for batch, other in zip(alone, helped, strict=True):
        torch.testing.assert_close(batch.images, other.images, rtol=0, atol=0)
        assert_same_target(batch.targets[0], other.targets[0])


def test_an_epochs_order_is_a_permutation() -> None:
    assert sorted(batches.shuffled(100, seed=1, epoch=2)) == list(range(100))


def test_an_epochs_order_depends_on_seed_and_epoch_alone() -> None:
    order = batches.shuffled(100, seed=1, epoch=2)
    assert batches.shuffled(100, seed=1, epoch=2) == order
    assert batches.shuffled(100, seed=2, epoch=2) != order
    assert batches.shuffled(100, seed=1, epoch=3) != order
    assert order != list(range(100))
