import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools.coco import COCO
from torch import Tensor
from torchvision.ops import box_convert

from refinebox import data
from refinebox.data import Batch, CocoData, CocoDataset, Sample, Target
from refinebox.images import preprocess

SIZES = ((40, 60), (60, 40))  # height, width
CATEGORIES = [{"id": 3, "name": "cat"}, {"id": 7, "name": "dog"}]
COLUMNS = {3: 0, 7: 1}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number, (height, width) in enumerate(SIZES, start=1):
        pixels = np.random.default_rng(number).integers(0, 256, (height, width, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{number}.png")
    return tmp_path


def image_entries() -> list[dict[str, Any]]:
    return [
        {"id": number, "file_name": f"{number}.png", "height": height, "width": width}
        for number, (height, width) in enumerate(SIZES, start=1)
    ]


def annotation(number: int = 1, **fields: Any) -> dict[str, Any]:
    plain = {"id": number, "image_id": 1, "category_id": 3, "bbox": [6, 4, 30, 20], "area": 600, "iscrowd": 0}
    return {**plain, **fields}


def without(entry: dict[str, Any], *fields: str) -> dict[str, Any]:
    return {key: value for key, value in entry.items() if key not in fields}


def written(folder: Path, **lists: Any) -> Path:
    content = {"images": image_entries(), "annotations": [annotation()], "categories": CATEGORIES, **lists}
    (folder / "coco.json").write_text(json.dumps(content))
    return folder / "coco.json"


def read(folder: Path, **lists: Any) -> CocoData:
    return data.read(written(folder, **lists), folder)


def test_a_clean_file_is_read_unchanged(folder: Path) -> None:
    annotations = [annotation(5), annotation(9, image_id=2, category_id=7)]
    found = read(folder, annotations=annotations)
    assert found.images == image_entries()
    assert found.annotations == annotations
    assert found.categories == {3: "cat", 7: "dog"}
    assert found.folder == folder
    assert found.notes == {}
    assert found.summary() == "2 images, 2 boxes, 2 categories"


def test_the_content_as_coco_json_is_read_by_pycocotools(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = folder / "out.json"
    path.write_text(json.dumps(read(folder, annotations=[without(annotation(), "id", "area", "iscrowd")]).coco()))
    coco = COCO(str(path))
    assert coco.getAnnIds(imgIds=[1], catIds=[3], iscrowd=False) == [1]
    assert coco.loadCats([7]) == [{"id": 7, "name": "dog"}]
    assert "index created" in capsys.readouterr().out


@pytest.mark.parametrize("ids", [[0, 1, 2], [None, 4, 5], [3, 3, 4]], ids=["zero", "missing", "duplicated"])
def test_annotations_are_renumbered(ids: list[int | None], folder: Path) -> None:
    annotations = [annotation(id=number) if number is not None else without(annotation(), "id") for number in ids]
    found = read(folder, annotations=annotations)
    assert [entry["id"] for entry in found.annotations] == [1, 2, 3]
    assert "; 3 annotation ids renumbered" in found.summary()


def test_renumbered_ids_stay_unique_where_boxes_are_dropped(folder: Path) -> None:
    annotations = [annotation(0), annotation(0, bbox=[1, 1, 0, 5]), annotation(0, image_id=2)]
    ids = [entry["id"] for entry in read(folder, annotations=annotations).annotations]
    assert len(set(ids)) == 2
    assert min(ids) >= 1


def test_a_missing_area_is_that_of_the_box(folder: Path) -> None:
    annotations = [without(annotation(1, bbox=[0, 0, 3, 5]), "area"), annotation(2, area=None), annotation(3, area=7)]
    found = read(folder, annotations=annotations)
    assert [entry["area"] for entry in found.annotations] == [15, 600, 7]
    assert "; 2 areas filled in" in found.summary()


def test_a_missing_crowd_flag_means_no_crowd(folder: Path) -> None:
    annotations = [without(annotation(1), "iscrowd"), annotation(2, iscrowd=None), annotation(3, iscrowd=1)]
    assert [entry["iscrowd"] for entry in read(folder, annotations=annotations).annotations] == [0, 0, 1]


@pytest.mark.parametrize("box", [[5, 5, 0, 10], [5, 5, 10, 0], [5, 5, -3, 10], [5, 5, 0, 0]])
def test_boxes_without_area_are_dropped(box: list[int], folder: Path) -> None:
    found = read(folder, annotations=[annotation(1, bbox=box), annotation(2)])
    assert [entry["id"] for entry in found.annotations] == [2]
    assert "; 1 boxes without area dropped" in found.summary()


def test_crowd_regions_are_kept_for_evaluation(folder: Path) -> None:
    found = read(folder, annotations=[annotation(1), annotation(2, iscrowd=1)])
    assert [entry["id"] for entry in found.coco()["annotations"]] == [1, 2]
    assert "; 1 crowd regions (not trained on)" in found.summary()


def test_images_without_objects_are_counted(folder: Path) -> None:
    assert "; 1 images without objects" in read(folder).summary()


@pytest.mark.parametrize("broken", [{"width": None}, {"height": 0}, {"width": None, "height": None}])
def test_missing_sizes_are_read_from_the_files(broken: dict[str, int | None], folder: Path) -> None:
    first, second = image_entries()
    first = {key: value for key, value in {**first, **broken}.items() if value is not None}
    found = read(folder, images=[first, second])
    assert found.images == image_entries()
    assert "; 1 image sizes read from files" in found.summary()


def test_large_numbers_are_grouped_in_the_summary(folder: Path) -> None:
    annotations = [without(annotation(number), "area") for number in range(1, 1235)]
    assert read(folder, annotations=annotations).summary().startswith("2 images, 1,234 boxes, 2 categories; ")


def test_a_missing_annotation_file_is_not_found(folder: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no annotation file at .*none\.json; check the path"):
        data.read(folder / "none.json", folder)


@pytest.mark.parametrize("content", [b"", b"{", b"\x89PNG\r\n", b"\xff\xfe\xff"])
def test_a_file_that_is_not_json_is_an_error(content: bytes, folder: Path) -> None:
    (folder / "coco.json").write_bytes(content)
    with pytest.raises(ValueError, match=r"coco\.json is not JSON \(.*\); expected COCO annotations"):
        data.read(folder / "coco.json", folder)


@pytest.mark.parametrize(
    ("content", "key"),
    [
        ([], "images"),
        ({"images": []}, "annotations"),
        ({"images": [], "annotations": []}, "categories"),
        ({"images": [], "annotations": {}, "categories": []}, "annotations"),
    ],
)
def test_json_that_is_not_coco_is_an_error(content: Any, key: str, folder: Path) -> None:
    (folder / "coco.json").write_text(json.dumps(content))
    expected = rf"coco\.json is not COCO JSON: no list '{key}'; expected images, annotations, categories"
    with pytest.raises(ValueError, match=expected):
        data.read(folder / "coco.json", folder)


@pytest.mark.parametrize(
    ("key", "field"),
    [
        ("images", "id"),
        ("images", "file_name"),
        ("annotations", "image_id"),
        ("annotations", "category_id"),
        ("annotations", "bbox"),
        ("categories", "id"),
        ("categories", "name"),
    ],
)
def test_an_entry_without_a_needed_field_is_an_error(key: str, field: str, folder: Path) -> None:
    complete = {"images": image_entries()[0], "annotations": annotation(), "categories": CATEGORIES[0]}[key]
    with pytest.raises(ValueError, match=rf"coco\.json is not COCO JSON: {key}\[1\] has no '{field}'"):
        read(folder, **{key: [complete, without(complete, field)]})


def test_an_entry_that_is_no_object_is_an_error(folder: Path) -> None:
    with pytest.raises(ValueError, match=r"annotations\[0\] has no 'image_id'"):
        read(folder, annotations=[5])


def test_a_file_without_images_is_an_error(folder: Path) -> None:
    with pytest.raises(ValueError, match=r"coco\.json lists no images; expected at least one"):
        read(folder, images=[], annotations=[])


def test_an_image_id_used_twice_is_an_error(folder: Path) -> None:
    images = [{**entry, "id": 1} for entry in image_entries()]
    with pytest.raises(ValueError, match=r"coco\.json uses an image id twice; ids must be unique"):
        read(folder, images=images)


def test_missing_image_files_are_counted_and_one_is_named(folder: Path) -> None:
    (folder / "2.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"1 of 2 images of .*coco\.json are not in .*, such as 2\.png"):
        read(folder)


def test_annotations_without_images_are_an_error(folder: Path) -> None:
    annotations = [annotation(number, image_id=100 + number) for number in range(1, 8)]
    expected = r"annotations without images, image ids 101, 102, 103, 104, 105 \(7 in all\) are not listed"
    with pytest.raises(ValueError, match=expected):
        read(folder, annotations=annotations)


def test_annotations_of_unknown_categories_are_an_error(folder: Path) -> None:
    with pytest.raises(ValueError, match=r"annotations of unknown categories 0, 4; listed are 3, 7"):
        read(folder, annotations=[annotation(1, category_id=4), annotation(2, category_id=0)])


@pytest.mark.parametrize(
    "box",
    [
        [1, 2, 3],
        [1, 2, 3, 4, 5],
        [],
        [1, 2, "3", 4],
        [1, 2, None, 4],
        [1, 2, float("nan"), 4],
        [1, 2, 3, float("inf")],
        [[1, 2, 3, 4]],
        "1234",
        {},
        None,
        5,
    ],
    ids=str,
)
def test_malformed_boxes_are_an_error(box: Any, folder: Path) -> None:
    expected = r"the box of annotation 1 of image 2 is .*; expected \[x, y, width, height\]"
    with pytest.raises(ValueError, match=expected):
        read(folder, annotations=[annotation(1), annotation(2, image_id=2, bbox=box)])


def test_an_unreadable_image_whose_size_is_needed_is_named(folder: Path) -> None:
    (folder / "1.png").write_bytes(b"")
    with pytest.raises(ValueError, match=r"1\.png is not a readable image"):
        read(folder, images=[without(image_entries()[0], "width")])


def layout(folder: Path, files: Iterable[str], folders: Iterable[str]) -> None:
    for name in folders:
        (folder / name).mkdir(parents=True)
    for name in files:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("{}")


@pytest.mark.parametrize(
    ("annotations", "images"),
    [
        ("annotations/instances_val.json", "val"),
        ("annotations/instances_val2017.json", "val2017"),
        ("annotations/instances_val2017.json", "images/val2017"),
        ("annotations/instances_val.json", "images"),
        ("valid/_annotations.coco.json", "valid"),
    ],
)
def test_a_split_is_found(annotations: str, images: str, tmp_path: Path) -> None:
    layout(tmp_path, [annotations], [images, "train2017"])
    assert data.find(tmp_path, "val") == (tmp_path / annotations, tmp_path / images)


def test_the_training_split_of_a_roboflow_export_is_found(tmp_path: Path) -> None:
    layout(tmp_path, ["train/_annotations.coco.json", "valid/_annotations.coco.json"], [])
    assert data.find(tmp_path, "train") == (tmp_path / "train" / "_annotations.coco.json", tmp_path / "train")


def test_splits_do_not_mix(tmp_path: Path) -> None:
    files = ["annotations/instances_train2017.json", "annotations/instances_val2017.json"]
    layout(tmp_path, files, ["train2017", "val2017"])
    assert data.find(tmp_path, "train") == (tmp_path / files[0], tmp_path / "train2017")


def test_several_annotation_files_of_a_split_are_ambiguous(tmp_path: Path) -> None:
    files = ["annotations/instances_val2014.json", "annotations/instances_val2017.json"]
    layout(tmp_path, files, ["val2014", "val2017"])
    expected = (
        r"annotations holds several val files \(instances_val2014\.json, instances_val2017\.json\); "
        "name one with --annotations and --images"
    )
    with pytest.raises(FileNotFoundError, match=expected):
        data.find(tmp_path, "val")


def test_a_missing_image_folder_is_not_found(tmp_path: Path) -> None:
    layout(tmp_path, ["annotations/instances_val2017.json"], [])
    expected = r"no images for .*; looked for the folders .*/val2017, .*/images/val2017, .*/images$"
    with pytest.raises(FileNotFoundError, match=expected):
        data.find(tmp_path, "val")


def test_a_folder_without_annotations_is_an_error(tmp_path: Path) -> None:
    expected = r"no train annotations under .*: expected annotations/instances_train\*\.json; name the parts"
    with pytest.raises(FileNotFoundError, match=expected):
        data.find(tmp_path, "train")


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
        torch.testing.assert_close(image, preprocess(file, 32, 100), rtol=0, atol=0)


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


def test_a_flip_mirrors_image_and_boxes(folder: Path) -> None:
    found = read(folder)
    plain, flipping = dataset(found)[0], dataset(found, augmentation="flip")
    with Image.open(folder / "1.png") as file:
        mirrored = preprocess(file.transpose(Image.Transpose.FLIP_LEFT_RIGHT), 32, 100)
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
def test_flips_are_part_of_augmentation(augmentation: data.Augmentation, expected: set[bool], folder: Path) -> None:
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
def test_augmented_boxes_stay_on_their_objects(augmentation: data.Augmentation, folder: Path) -> None:
    samples = dataset(painted(folder), augmentation=augmentation, short_side=200, long_side=1000)
    for samples.variant in range(20):
        image, target, *_ = samples[0]
        assert len(target.boxes) == 1
        height, width = image.shape[-2:]
        corners = box_convert(target.boxes[0], "cxcywh", "xyxy") * torch.tensor([width, height, width, height])
        torch.testing.assert_close(corners, bright_box(image), rtol=0, atol=4)


def test_a_batch_holds_what_its_samples_hold(folder: Path) -> None:
    samples = dataset(read(folder))
    batch = data.collate([samples[0], samples[1]])
    assert batch.images.shape == (2, 3, 48, 48)
    assert batch.sizes.tolist() == [[32, 48], [48, 32]]
    assert batch.original_sizes.tolist() == [[40, 60], [60, 40]]
    assert batch.image_ids == [1, 2]
    torch.testing.assert_close(batch.images[1, :, :48, :32], samples[1][0], rtol=0, atol=0)
    for target, sample in zip(batch.targets, (samples[0], samples[1]), strict=True):
        assert_same_target(target, sample[1])


def test_a_batch_moves_to_a_device_as_a_whole(folder: Path) -> None:
    samples = dataset(read(folder))
    batch = data.collate([samples[0], samples[1]]).to(torch.device("meta"))
    tensors = [batch.images, batch.sizes, batch.original_sizes]
    tensors += [tensor for target in batch.targets for tensor in (target.boxes, target.columns)]
    assert {tensor.device.type for tensor in tensors} == {"meta"}
    assert batch.image_ids == [1, 2]


def image_ids(batches: Iterable[Batch]) -> list[list[int]]:
    return [batch.image_ids for batch in batches]


def test_batches_come_in_the_order_of_the_file(training: CocoData) -> None:
    columns = {category_id: column for column, category_id in enumerate(training.categories)}
    loader = data.loaded(CocoDataset(training, columns, short_side=32), data.cut(range(6), 4))
    assert image_ids(loader) == [[1, 2, 3, 4], [5, 6]]
    assert len(loader) == 2


def test_batches_come_in_the_order_that_is_asked_for(training: CocoData) -> None:
    columns = {category_id: column for column, category_id in enumerate(training.categories)}
    loader = data.loaded(CocoDataset(training, columns, short_side=32), data.cut([4, 0, 2], 2))
    assert image_ids(loader) == [[5, 1], [3]]


@pytest.mark.filterwarnings("ignore:.*use of fork.*:DeprecationWarning")
def test_workers_do_not_change_the_batches(folder: Path) -> None:
    samples = dataset(read(folder), augmentation="multiscale")
    samples.variant = 3
    alone, helped = (list(data.loaded(samples, data.cut(range(len(samples)), 1), workers)) for workers in (0, 1))
    assert image_ids(alone) == image_ids(helped) == [[1], [2]]
    for batch, other in zip(alone, helped, strict=True):
        torch.testing.assert_close(batch.images, other.images, rtol=0, atol=0)
        assert_same_target(batch.targets[0], other.targets[0])


def test_an_epochs_order_is_a_permutation() -> None:
    assert sorted(data.shuffled(100, seed=1, epoch=2)) == list(range(100))


def test_an_epochs_order_depends_on_seed_and_epoch_alone() -> None:
    order = data.shuffled(100, seed=1, epoch=2)
    assert data.shuffled(100, seed=1, epoch=2) == order
    assert data.shuffled(100, seed=2, epoch=2) != order
    assert data.shuffled(100, seed=1, epoch=3) != order
    assert order != list(range(100))
