import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from pycocotools.coco import COCO

from refinebox.data import annotations, layout, shapes


def hashes(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def images_of(folder: Path, split: str, seed: int) -> set[str]:
    shapes.generate(folder, split, 3, seed)
    return {digest for name, digest in hashes(folder).items() if name.endswith(".jpg")}


def test_the_same_seed_gives_the_same_files(tmp_path: Path) -> None:
    for name in ("first", "second"):
        shapes.generate(tmp_path / name, "train", 3, seed=5)
    assert hashes(tmp_path / "first") == hashes(tmp_path / "second")
    assert len(hashes(tmp_path / "first")) == 4


def test_more_images_begin_with_the_same_ones(tmp_path: Path) -> None:
    few, many = tmp_path / "few", tmp_path / "many"
    shapes.generate(few, "train", 2, seed=5)
    shapes.generate(many, "train", 3, seed=5)
    assert set(hashes(few / "train").items()) < set(hashes(many / "train").items())


def test_another_seed_gives_other_images(tmp_path: Path) -> None:
    assert images_of(tmp_path / "a", "train", seed=0).isdisjoint(images_of(tmp_path / "b", "train", seed=1))


def test_another_split_gives_other_images(tmp_path: Path) -> None:
    assert images_of(tmp_path / "a", "train", seed=0).isdisjoint(images_of(tmp_path / "b", "val", seed=0))


def test_workers_do_not_change_the_files(tmp_path: Path) -> None:
    for name, workers in (("alone", 1), ("helped", 2)):
        shapes.generate(tmp_path / name, "train", 2, seed=0, workers=workers)
    assert hashes(tmp_path / "alone") == hashes(tmp_path / "helped")


def test_the_annotations_are_read_by_pycocotools(shapes_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    coco = COCO(str(shapes_folder / "annotations" / "instances_train.json"))
    assert "index created" in capsys.readouterr().out
    assert sorted(coco.getImgIds()) == [1, 2, 3, 4, 5, 6]
    assert [coco.cats[category_id]["name"] for category_id in coco.getCatIds()] == list(shapes.CATEGORIES)
    assert sorted(coco.getAnnIds()) == list(range(1, len(coco.anns) + 1))
    assert {entry["category_id"] for entry in coco.anns.values()} <= set(coco.getCatIds())


def test_the_annotations_need_no_repair(shapes_folder: Path) -> None:
    assert annotations.read(*layout.find(shapes_folder, "train")).notes == {}


def test_image_sizes_are_those_of_the_files(shapes_folder: Path) -> None:
    content = json.loads((shapes_folder / "annotations" / "instances_train.json").read_text())
    for entry in content["images"]:
        with Image.open(shapes_folder / "train" / entry["file_name"]) as image:
            assert image.size == (entry["width"], entry["height"])
            assert image.mode == "RGB"


@pytest.mark.parametrize("seed", range(12))
def test_boxes_and_areas_are_those_of_what_can_be_seen(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[tuple[str, NDArray[np.bool_]]] = []
    shape = shapes.shape

    def recorded(random: np.random.Generator, name: str, height: int, width: int) -> Any:
        (top, left), mask = shape(random, name, height, width)
        whole = np.zeros((height, width), dtype=bool)
        whole[top : top + mask.shape[0], left : left + mask.shape[1]] = mask > 0.5
        drawn.append((name, whole))
        return (top, left), mask

    monkeypatch.setattr(shapes, "shape", recorded)
    _, objects = shapes.draw(np.random.default_rng(seed))
    expected = []
    for index, (name, mask) in enumerate(drawn):
        hidden = np.any([np.zeros_like(mask), *(later for _, later in drawn[index + 1 :])], axis=0)
        visible = mask & ~hidden
        if visible.sum() < max(40, 0.4 * mask.sum()):
            continue
        bounds = Image.fromarray(visible).getbbox()
        assert bounds is not None
        left, top, right, bottom = bounds
        box = [left, top, right - left, bottom - top]
        expected.append((shapes.CATEGORIES.index(name), box, int(visible.sum())))
    assert objects == expected


def test_boxes_lie_inside_the_image() -> None:
    for seed in range(30):
        pixels, objects = shapes.draw(np.random.default_rng(seed))
        height, width = pixels.shape[:2]
        for _, (left, top, box_width, box_height), area in objects:
            assert left >= 0
            assert top >= 0
            assert left + box_width <= width
            assert top + box_height <= height
            assert 0 < area <= box_width * box_height


def test_objects_that_are_mostly_hidden_are_not_annotated(monkeypatch: pytest.MonkeyPatch) -> None:
    corners = iter([(10, 10), (10, 10), (60, 10), (60, 10)])
    sizes = iter([(20, 20), (20, 13), (20, 20), (20, 12)])

    def scripted(*_: object) -> tuple[tuple[int, int], NDArray[np.float32]]:
        return next(corners, (0, 0)), np.ones(next(sizes, (1, 1)), dtype=np.float32)

    monkeypatch.setattr(shapes, "shape", scripted)
    _, objects = shapes.draw(np.random.default_rng(2))  # draws four shapes
    assert [(box, area) for _, box, area in objects] == [
        ([10, 10, 13, 20], 260),
        ([22, 60, 8, 20], 160),
        ([10, 60, 12, 20], 240),
    ]


@pytest.mark.parametrize("name", shapes.CATEGORIES)
def test_a_shape_covers_its_window_and_nothing_else(name: str) -> None:
    for seed in range(20):
        (top, left), mask = shapes.shape(np.random.default_rng(seed), name, 160, 208)
        assert top >= 0
        assert left >= 0
        assert top + mask.shape[0] <= 160
        assert left + mask.shape[1] <= 208
        assert mask.min() >= 0
        assert mask.max() == 1
