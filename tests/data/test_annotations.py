import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from coco_files import CATEGORIES, annotation, image_entries, read, without, write_images, written
from pycocotools.coco import COCO

from refinebox.data.annotations import find, locate
from refinebox.data.annotations import read as read_file


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_images(tmp_path)
    return tmp_path


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
        read_file(folder / "none.json", folder)


@pytest.mark.parametrize("content", [b"", b"{", b"\x89PNG\r\n", b"\xff\xfe\xff"])
def test_a_file_that_is_not_json_is_an_error(content: bytes, folder: Path) -> None:
    (folder / "coco.json").write_bytes(content)
    with pytest.raises(ValueError, match=r"coco\.json is not JSON \(.*\); expected COCO annotations"):
        read_file(folder / "coco.json", folder)


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
        read_file(folder / "coco.json", folder)


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


def test_some_image_files_may_be_missing_where_nobody_is_strict(folder: Path) -> None:
    (folder / "2.png").unlink()
    found = read_file(written(folder), folder, strict=False)
    assert [entry["id"] for entry in found.images] == [1, 2]
    assert "; 1 image files missing" in found.summary()
    assert "missing" not in read_file(written(folder), folder, images_needed=False).summary()


def test_all_image_files_missing_is_an_error_even_so(folder: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"2 of 2 images of .*coco\.json are not in .*, such as 1\.png"):
        read_file(written(folder), folder / "elsewhere", strict=False)


def test_an_unreadable_image_has_no_size_where_nobody_is_strict(folder: Path) -> None:
    (folder / "1.png").write_bytes(b"")
    path = written(folder, images=[without(entry, "width") for entry in image_entries()])
    found = read_file(path, folder, strict=False)
    assert [(entry["width"], entry["height"]) for entry in found.images] == [(0, 0), (40, 60)]
    assert "; 1 image sizes read from files" in found.summary()


def test_a_split_is_named_by_its_folder_or_by_its_parts(folder: Path, tmp_path: Path) -> None:
    layout(tmp_path / "coco", ["annotations/instances_val.json"], ["val"])
    expected = tmp_path / "coco/annotations/instances_val.json", tmp_path / "coco/val"
    assert locate("val", tmp_path / "coco", None, None) == expected
    assert locate("val", None, folder / "a.json", folder) == (folder / "a.json", folder)
    assert locate("val", None, folder / "a.json", None, images_needed=False) == (folder / "a.json", folder)
    for named in ((None, None, None), (None, folder / "a.json", None), (folder, None, folder)):
        with pytest.raises(ValueError, match=r"the val images are not named: pass --data DIR, or both the annotation"):
            locate("val", *named)


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
    assert find(tmp_path, "val") == (tmp_path / annotations, tmp_path / images)


def test_the_training_split_of_a_roboflow_export_is_found(tmp_path: Path) -> None:
    layout(tmp_path, ["train/_annotations.coco.json", "valid/_annotations.coco.json"], [])
    assert find(tmp_path, "train") == (tmp_path / "train" / "_annotations.coco.json", tmp_path / "train")


def test_splits_do_not_mix(tmp_path: Path) -> None:
    files = ["annotations/instances_train2017.json", "annotations/instances_val2017.json"]
    layout(tmp_path, files, ["train2017", "val2017"])
    assert find(tmp_path, "train") == (tmp_path / files[0], tmp_path / "train2017")


def test_several_annotation_files_of_a_split_are_ambiguous(tmp_path: Path) -> None:
    files = ["annotations/instances_val2014.json", "annotations/instances_val2017.json"]
    layout(tmp_path, files, ["val2014", "val2017"])
    expected = (
        r"annotations holds several val files \(instances_val2014\.json, instances_val2017\.json\); "
        "name one with --annotations and --images"
    )
    with pytest.raises(FileNotFoundError, match=expected):
        find(tmp_path, "val")


def test_a_missing_image_folder_is_not_found(tmp_path: Path) -> None:
    layout(tmp_path, ["annotations/instances_val2017.json"], [])
    expected = r"no images for .*; looked for the folders .*/val2017, .*/images/val2017, .*/images$"
    with pytest.raises(FileNotFoundError, match=expected):
        find(tmp_path, "val")


def test_a_folder_without_annotations_is_an_error(tmp_path: Path) -> None:
    expected = r"no train annotations under .*: expected annotations/instances_train\*\.json; name the parts"
    with pytest.raises(FileNotFoundError, match=expected):
        find(tmp_path, "train")
