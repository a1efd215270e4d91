import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from coco_files import CATEGORIES, annotation, image_entries, read, without, write_images, written
from pycocotools import mask as masks
from pycocotools.coco import COCO

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
    annotations = [
        annotation(id=number, bbox=[place, 4, 30, 20]) if number is not None else without(annotation(), "id")
        for place, number in enumerate(ids)
    ]
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


@pytest.mark.parametrize("box", [[5, 5, 0, 10], [5, 5, 10, 0], [5, 5, -3, 0], [5, 5, 0, 0]])
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
        ("categories", "id"),
        ("categories", "name"),
    ],
)
def test_an_entry_without_a_needed_field_is_an_error(key: str, field: str, folder: Path) -> None:
    complete = {"images": image_entries()[0], "categories": CATEGORIES[0]}[key]
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


def test_annotations_without_images_are_an_error(folder: Path) -> None:
    annotations = [annotation(number, image_id=100 + number) for number in range(1, 8)]
    expected = r"annotations without images, image ids 101, 102, 103, 104, 105 \(7 in all\) are not listed"
    with pytest.raises(ValueError, match=expected):
        read(folder, annotations=annotations)


def test_annotations_of_unknown_categories_are_an_error(folder: Path) -> None:
    with pytest.raises(ValueError, match=r"annotations of unknown categories 0, 4; listed are 3, 7"):
        read(folder, annotations=[annotation(1, category_id=4), annotation(2, category_id=0)])


MALFORMED: list[Any] = [
    [1, 2, 3],
    [1, 2, 3, 4, 5],
    [],
    [1, 2, "wide", 4],
    [1, 2, "1_0", 4],
    [1, 2, None, 4],
    [1, 2, True, 4],
    [1, 2, float("nan"), 4],
    [1, 2, 3, float("inf")],
    [[1, 2, 3, 4]],
    "1234",
    {},
    None,
    5,
]


@pytest.mark.parametrize("box", MALFORMED, ids=str)
def test_one_malformed_box_is_left_out_counted_and_named(box: Any, folder: Path) -> None:
    found = read(folder, annotations=[annotation(1), annotation(2, image_id=2, bbox=box)])
    assert [entry["id"] for entry in found.annotations] == [1]
    assert re.search(r"; 1 annotations without a box left out, such as annotations\[1\] has ", found.summary())


@pytest.mark.parametrize("box", MALFORMED, ids=str)
def test_nothing_but_malformed_boxes_is_an_error(box: Any, folder: Path) -> None:
    expected = r"coco\.json: none of 1 annotations can be used: annotations\[0\] has (the box|no 'bbox')"
    with pytest.raises(ValueError, match=expected):
        read(folder, annotations=[annotation(bbox=box)])


@pytest.mark.parametrize(
    "box", [["6", "4", "30", "20"], ["6.0", 4, "3e1", 20.0], "[6, 4, 30, 20]", "6 4 30 20"], ids=str
)
def test_boxes_as_text_are_the_numbers_that_they_are(box: Any, folder: Path) -> None:
    found = read(folder, annotations=[annotation(bbox=box)])
    assert found.annotations == [annotation()]
    assert "box" not in "".join(found.notes)


@pytest.mark.parametrize("field", ["image_id", "category_id"])
def test_an_annotation_of_nothing_is_left_out_and_counted(field: str, folder: Path) -> None:
    found = read(folder, annotations=[annotation(1), without(annotation(2), field), annotation(3, **{field: 99}), 5])
    assert [entry["id"] for entry in found.annotations] == [1]
    what, one = {"image_id": ("images", "image"), "category_id": ("categories", "category")}[field]
    assert f"; 1 annotations without {field} left out, such as annotations[1] has no '{field}'" in found.summary()
    assert f"; 1 annotations of {what} that are not listed left out, such as {one} id 99" in found.summary()
    assert "; 1 annotations that are no objects left out" in found.summary()


@pytest.mark.parametrize("field", ["image_id", "category_id", "bbox"])
def test_nothing_but_annotations_without_a_field_is_an_error(field: str, folder: Path) -> None:
    with pytest.raises(ValueError, match=rf"none of 1 annotations can be used: annotations\[0\] has no '{field}'"):
        read(folder, annotations=[without(annotation(), field)])


@pytest.mark.parametrize(
    "segmentation", [[[6, 4, 36, 4, 36, 24, 6, 24]], [6, 4, 36, 24, 6, 24], {"size": [40, 60], "counts": None}], ids=str
)
def test_a_missing_box_is_that_of_the_segmentation(segmentation: Any, folder: Path) -> None:
    if isinstance(segmentation, dict):
        mask = np.zeros(segmentation["size"], dtype=np.uint8, order="F")
        mask[4:24, 6:36] = 1
        packed = masks.encode(mask)
        segmentation = {**packed, "counts": packed["counts"].decode()}
    found = read(folder, annotations=[without(annotation(segmentation=segmentation), "bbox")])
    assert found.annotations[0]["bbox"] == [6, 4, 30, 20]
    assert "; 1 boxes taken from segmentations, such as annotations[0] has no 'bbox'" in found.summary()


@pytest.mark.parametrize("box", [[36, 24, -30, -20], [36, 4, -30, 20], [6, 24, 30, -20]])
def test_boxes_drawn_from_another_corner_are_turned_around(box: list[int], folder: Path) -> None:
    found = read(folder, annotations=[annotation(bbox=box)])
    assert found.annotations == [annotation()]
    assert "; 1 boxes with negative sides turned around, such as id 1" in found.summary()


@pytest.mark.parametrize(
    ("flag", "expected"),
    [("0", 0), ("1", 1), (False, 0), (True, 1), ("false", 0), ("True", 1), (0.0, 0), (1.0, 1), ("", 0), ("1.0", 1)],
)
def test_crowd_flags_of_every_type_mean_what_they_say(flag: Any, expected: int, folder: Path) -> None:
    found = read(folder, annotations=[annotation(iscrowd=flag)])
    assert found.annotations == [annotation(iscrowd=expected)]
    assert "taken for 0" not in found.summary()


@pytest.mark.parametrize("flag", ["maybe", -1, 2, [], [1], {}, float("nan")], ids=str)
def test_crowd_flags_that_say_nothing_are_0_and_counted(flag: Any, folder: Path) -> None:
    found = read(folder, annotations=[annotation(iscrowd=flag)])
    assert found.annotations == [annotation()]
    assert "; 1 iscrowd flags that are neither 0 nor 1 taken for 0" in found.summary()


@pytest.mark.parametrize(
    "area", [0, -1, -600.0, 1e-3, 0.4, 10**6, 1e300, "wide", "-1", [], {}, True, float("nan")], ids=str
)
def test_areas_that_cannot_be_are_filled_in_and_counted(area: Any, folder: Path) -> None:
    found = read(folder, annotations=[annotation(area=area)])
    assert found.annotations == [annotation()]
    assert "; 1 areas that cannot be the object's filled in, such as " in found.summary()


@pytest.mark.parametrize("area", [600, 600.0, "600", "600.0", 31 * 21])
def test_areas_of_every_type_are_the_numbers_that_they_are(area: Any, folder: Path) -> None:
    found = read(folder, annotations=[annotation(area=area)])
    assert found.annotations[0]["area"] == float(area)
    assert "areas" not in found.summary()


@pytest.mark.parametrize(
    "ids", [[-5, -6], ["a", "b"], [2**64, 2**64 + 1], ["ff01", "ff02"], [1.5, 2.5], [[1], [2]]], ids=str
)
def test_annotations_with_ids_of_other_kinds_are_renumbered(ids: list[Any], folder: Path) -> None:
    found = read(folder, annotations=[annotation(ids[0]), annotation(ids[1], image_id=2)])
    assert [entry["id"] for entry in found.annotations] == [1, 2]
    assert "; 2 annotation ids renumbered" in found.summary()


def test_annotations_that_are_there_twice_are_left_out_and_counted(folder: Path) -> None:
    found = read(folder, annotations=[annotation(1), annotation(2, image_id=2), annotation(1)])
    assert [entry["id"] for entry in found.annotations] == [1, 2]
    assert "; 1 annotations that are there twice left out, such as id 1" in found.summary()


def test_objects_annotated_twice_are_counted(folder: Path) -> None:
    found = read(folder, annotations=[annotation(1), annotation(2)])
    assert len(found.annotations) == 2
    assert "; 1 objects annotated twice (same image, category and box), such as id 2" in found.summary()


def test_an_unreadable_image_whose_size_is_needed_is_named(folder: Path) -> None:
    (folder / "1.png").write_bytes(b"")
    with pytest.raises(ValueError, match=r"1\.png is not a readable image"):
        read(folder, images=[without(image_entries()[0], "width")])
