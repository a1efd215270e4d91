"""None"""

from collections.abc import Iterable
from pathlib import Path

import pytest
import torch
from coco_files import FORM, assert_same_target, dataset, read, write_images
from PIL import Image

from refinebox.data import batches
from refinebox.data.annotations import CocoData
from refinebox.data.batches import Batch
from refinebox.data.dataset import CocoDataset
from refinebox.data.input_format import InputFormat


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_images(tmp_path)
    return tmp_path


def test_a_batch_holds_what_its_samples_hold(folder: Path) -> None:
    samples = dataset(read(folder))
    batch = batches.collate([samples[0], samples[1]], FORM)
    assert batch.images.shape == (2, 3, 48, 48)
    assert batch.sizes.tolist() == [[32, 48], [48, 32]]
    assert batch.original_sizes.tolist() == [[40, 60], [60, 40]]
    assert batch.image_ids == [1, 2]
    torch.testing.assert_close(batch.images[1, :, :48, :32], samples[1][0], rtol=0, atol=0)
    for target, sample in zip(batch.targets, (samples[0], samples[1]), strict=True):
        assert_same_target(target, sample[1])


def test_a_batch_is_normalised_on_its_way_to_the_device(folder: Path) -> None:
    samples = dataset(read(folder))
    batch = batches.collate([samples[0], samples[1]], FORM)
    assert batch.images.dtype == torch.uint8
    moved = batch.to(torch.device("cpu"))
    expected = torch.zeros(2, 3, 48, 48)  # padding is zero, as mean pixels are
    for number, (height, width) in enumerate(((32, 48), (48, 32)), start=1):
        with Image.open(folder / f"{number}.png") as file:
            expected[number - 1, :, :height, :width] = FORM.preprocess(file)
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
    batch = batches.collate([samples[0], samples[1]], FORM).to(torch.device("meta"))
    tensors = [batch.images, batch.sizes, batch.original_sizes]
    tensors += [tensor for target in batch.targets for tensor in (target.boxes, target.columns)]
    assert {tensor.device.type for tensor in tensors} == {"meta"}
    assert batch.image_ids == [1, 2]


def image_ids(batches: Iterable[Batch]) -> list[list[int]]:
    return [batch.image_ids for batch in batches]


def test_batches_come_in_the_order_of_the_file(training: CocoData) -> None:
    columns = {category_id: column for column, category_id in enumerate(training.categories)}
    loader = batches.loaded(CocoDataset(training, columns, form=InputFormat(short_side=32)), batches.cut(range(6), 4))
    assert image_ids(loader) == [[1, 2, 3, 4], [5, 6]]
    assert len(loader) == 2


def test_batches_come_in_the_order_that_is_asked_for(training: CocoData) -> None:
    columns = {category_id: column for column, category_id in enumerate(training.categories)}
    loader = batches.loaded(CocoDataset(training, columns, form=InputFormat(short_side=32)), batches.cut([4, 0, 2], 2))
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
