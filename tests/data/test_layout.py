"""Where the parts of a data set are, in every tool's layout."""

from collections.abc import Iterable
from pathlib import Path

import pytest

from refinebox.data.layout import find, locate


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


def test_a_split_is_named_by_its_folder_or_by_its_parts(tmp_path: Path) -> None:
    layout(tmp_path / "coco", ["annotations/instances_val.json"], ["val"])
    expected = tmp_path / "coco/annotations/instances_val.json", tmp_path / "coco/val"
    assert locate("val", tmp_path / "coco", None, None) == expected
    assert locate("val", None, tmp_path / "a.json", tmp_path) == (tmp_path / "a.json", tmp_path)
    assert locate("val", None, tmp_path / "a.json", None, images_needed=False) == (tmp_path / "a.json", tmp_path)
    for named in ((None, None, None), (None, tmp_path / "a.json", None), (tmp_path, None, tmp_path)):
        with pytest.raises(ValueError, match=r"the val images are not named: pass --data DIR, or both the annotation"):
            locate("val", *named)


EXPORTS = {
    "CVAT": ("annotations/instances_Validation.json", "images/Validation"),
    "CVAT, plain": ("annotations/instances_val.json", "images/val"),
    "mmdet": ("annotations/instances_val2017.json", "val2017"),
    "named after the split": ("annotations/val.json", "images/val"),
    "ultralytics": ("annotations/instances_val2017.json", "images/val2017"),
    "Roboflow": ("valid/_annotations.coco.json", "valid"),
    "FiftyOne": ("validation/labels.json", "validation/data"),
    "one folder a split": ("val/annotations.json", "val/images"),
    "Label Studio, by split": ("val/result.json", "val/images"),
    "capitals": ("Annotations/Val.json", "Images/VAL"),
}


@pytest.mark.parametrize(("annotations", "images"), EXPORTS.values(), ids=EXPORTS)
def test_every_tools_export_is_found(annotations: str, images: str, tmp_path: Path) -> None:
    layout(tmp_path, [annotations], [])
    (tmp_path / images).mkdir(parents=True, exist_ok=True)
    assert find(tmp_path, "val") == (tmp_path / annotations, tmp_path / images)


def test_test_images_are_taken_where_no_others_are(tmp_path: Path) -> None:
    layout(tmp_path, ["test/_annotations.coco.json"], [])
    assert find(tmp_path, "val") == (tmp_path / "test/_annotations.coco.json", tmp_path / "test")
    layout(tmp_path, ["valid/_annotations.coco.json"], [])
    assert find(tmp_path, "val")[1] == tmp_path / "valid"
    with pytest.raises(FileNotFoundError, match="no train annotations"):
        find(tmp_path, "train")


def test_results_beside_the_annotations_are_not_taken_for_them(tmp_path: Path) -> None:
    layout(tmp_path, ["val/labels.json", "val/predictions.json"], [])
    (tmp_path / "val/labels.json").write_text('{"images": [], "annotations": []}')
    (tmp_path / "val/predictions.json").write_text("[]")
    assert find(tmp_path, "val")[0] == tmp_path / "val/labels.json"


def test_captions_and_keypoints_are_no_objects(tmp_path: Path) -> None:
    names = ["captions_val2017.json", "person_keypoints_val2017.json", "instances_val2017.json"]
    layout(tmp_path, [f"annotations/{name}" for name in names], ["val2017"])
    assert find(tmp_path, "val")[0].name == "instances_val2017.json"


def test_what_is_there_is_listed_where_nothing_fits(tmp_path: Path) -> None:
    layout(tmp_path, ["result.json", "notes.json"], ["images"])
    (tmp_path / "result.json").write_text('{"images": [], "annotations": []}')
    with pytest.raises(FileNotFoundError, match=r"with --annotations and --images; there are result\.json$"):
        find(tmp_path, "val")
    (tmp_path / "result.json").unlink()
    (tmp_path / "notes.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"--images; there are images/$"):
        find(tmp_path, "val")


def test_a_folder_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no folder at .*none; check the path$"):
        find(tmp_path / "none", "val")
