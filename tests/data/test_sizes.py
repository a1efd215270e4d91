"""Pictures that are not what was labelled: turned, resized, or others."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from refinebox.data import annotations
from refinebox.data.annotations import CocoData, labelled_picture
from refinebox.data.dataset import CocoDataset
from refinebox.data.images import read_image
from refinebox.data.input_format import InputFormat

WIDTH, HEIGHT = 64, 48
# what a camera that is held so stores of an upright picture
HELD = {3: Image.Transpose.ROTATE_180, 6: Image.Transpose.ROTATE_90, 8: Image.Transpose.ROTATE_270}


def content(
    folder: Path, *, orientation: int = 1, scale: float = 1, labelled: tuple[int, int] = (WIDTH, HEIGHT)
) -> Path:
    """Six pictures, stored as ``orientation`` says and resized, with objects everywhere in the upright picture."""
    random = np.random.default_rng(0)
    images, objects = [], []
    for number in range(1, 7):
        picture = Image.fromarray(random.integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8))
        picture = picture.resize((round(WIDTH * scale), round(HEIGHT * scale)))
        stored = picture.transpose(HELD[orientation]) if orientation in HELD else picture
        exif = Image.Exif()
        exif[0x0112] = orientation
        stored.save(folder / f"{number}.png", exif=exif)
        images.append({"id": number, "file_name": f"{number}.png", "width": labelled[0], "height": labelled[1]})
        for place in range(3):
            box = [place * 20, place * 10, 20, 25]
            known = {"id": len(objects) + 1, "image_id": number, "category_id": 1, "bbox": box, "area": 400}
            objects.append({**known, "iscrowd": 0})
    listed = {"images": images, "annotations": objects, "categories": [{"id": 1, "name": "thing"}]}
    (folder / "coco.json").write_text(json.dumps(listed))
    return folder / "coco.json"


def sample(data: CocoData, **options: Any) -> Any:
    return CocoDataset(data, {1: 0}, form=InputFormat(short_side=HEIGHT, long_side=WIDTH), **options)[0]


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_a_turned_picture_gives_what_the_upright_one_gives(orientation: int, tmp_path: Path) -> None:
    (tmp_path / "plain").mkdir()
    plain = sample(annotations.read(content(tmp_path / "plain"), tmp_path / "plain"))
    path = content(tmp_path, orientation=orientation)
    data = annotations.read(path, tmp_path)
    found = sample(data)
    assert (found[0] == plain[0]).all()
    assert (found[1].boxes == plain[1].boxes).all()
    assert found[2] == plain[2] == (HEIGHT, WIDTH)
    told = "; 6 images with an EXIF orientation turned upright, such as 1.png" in data.summary()
    assert told == (orientation != 1)


@pytest.mark.parametrize("orientation", [6, 8])
def test_a_picture_that_was_labelled_as_stored_stays_so(orientation: int, tmp_path: Path) -> None:
    path = content(tmp_path, orientation=orientation, labelled=(HEIGHT, WIDTH))
    listed = json.loads(path.read_text())
    for entry in listed["annotations"]:
        entry["bbox"] = [5, 5, 20, 25]
    path.write_text(json.dumps(listed))
    data = annotations.read(path, tmp_path)
    assert not data.upright
    assert labelled_picture(data, data.images[0]).size == (HEIGHT, WIDTH)
    assert "; 6 images with an EXIF orientation left as stored, as they were labelled" in data.summary()


@pytest.mark.parametrize("scale", [0.5, 2, 0.73])
def test_boxes_go_with_a_resized_picture(scale: float, tmp_path: Path) -> None:
    data = annotations.read(content(tmp_path, scale=scale), tmp_path)
    assert [(entry["width"], entry["height"]) for entry in data.images] == [(WIDTH, HEIGHT)] * 6
    assert "; 6 images of another size than labelled, with which boxes are scaled, such as 1.png: " in data.summary()
    found = sample(data)
    expected = [[10 / 64, 12.5 / 48, 20 / 64, 25 / 48], [30 / 64, 22.5 / 48, 20 / 64, 25 / 48]]
    np.testing.assert_allclose(found[1].boxes[:2].numpy(), expected, atol=1e-6)
    assert found[2] == (HEIGHT, WIDTH)
    assert labelled_picture(data, data.images[0]).size == (WIDTH, HEIGHT)


@pytest.mark.parametrize("labelled", [(HEIGHT, WIDTH), (40, 40), (WIDTH, 40)])
def test_sizes_that_boxes_do_not_fit_are_taken_from_the_files(labelled: tuple[int, int], tmp_path: Path) -> None:
    data = annotations.read(content(tmp_path, labelled=labelled), tmp_path)
    assert [(entry["width"], entry["height"]) for entry in data.images] == [(WIDTH, HEIGHT)] * 6
    assert "; 6 image sizes taken from the files, which the boxes fit, such as 1.png: 64 × 48 pixels" in data.summary()


def test_other_pictures_are_never_used(tmp_path: Path) -> None:
    path = content(tmp_path)
    Image.new("RGB", (30, 60)).save(tmp_path / "1.png")
    expected = r"1 of 6 images are not of the size that .*, such as 1\.png: 30 × 60 pixels, labelled as 64 × 48; turned"
    with pytest.raises(ValueError, match=expected):
        annotations.read(path, tmp_path)
    data = annotations.read(path, tmp_path, strict=False)
    assert "; 1 images that are not as they were labelled, such as 1.png" in data.summary()
    samples = CocoDataset(data, {1: 0}, form=InputFormat(short_side=HEIGHT, long_side=WIDTH))
    samples.strict = False
    assert "30 × 60 pixels, but its annotations are of 64 × 48" in samples[0].reason  # type: ignore[union-attr]


def test_missing_sizes_are_those_that_people_see(tmp_path: Path) -> None:
    path = content(tmp_path, orientation=6)
    listed = json.loads(path.read_text())
    for entry in listed["images"]:
        del entry["width"], entry["height"]
    path.write_text(json.dumps(listed))
    data = annotations.read(path, tmp_path)
    assert [(entry["width"], entry["height"]) for entry in data.images] == [(WIDTH, HEIGHT)] * 6
    assert read_image(tmp_path / "1.png").size == (WIDTH, HEIGHT)


def test_deep_and_animated_pictures_are_counted(tmp_path: Path) -> None:
    path = content(tmp_path)
    Image.fromarray(np.arange(WIDTH * HEIGHT, dtype=np.uint16).reshape(HEIGHT, WIDTH)).save(tmp_path / "1.png")
    frames = [Image.new("RGB", (WIDTH, HEIGHT), colour) for colour in ("red", "blue")]
    frames[0].save(tmp_path / "2.png", save_all=True, append_images=frames[1:])
    summary = annotations.read(path, tmp_path).summary()
    assert "; 1 images of more than 8 bits scaled by their range, such as 1.png" in summary
    assert "; 1 files with several frames, of which the first counts, such as 2.png" in summary
