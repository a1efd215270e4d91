"""Files in, results and pictures out; one broken file does not stop the rest."""

import json
import shutil
from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from refinebox.data.annotations import CocoData
from refinebox.data.images import read_image
from refinebox.detection.choice import Choice
from refinebox.detection.detector import Detector
from refinebox.refinement.refined_detector import RefinedDetector
from refinebox.refinement.refiner import Refiner
from refinebox.report.predictions import anywhere, detect_image, find_images, free_name, passed_over, predict


@pytest.fixture
def refined(detector: Detector) -> RefinedDetector:
    torch.manual_seed(3)
    return RefinedDetector(detector, Refiner(detector.channels, detector.strides))


@pytest.fixture
def photos(validation: CocoData, tmp_path: Path) -> Path:
    """Three images in three formats and orientations, and a file that is none."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for entry, name in zip(validation.images, ("b.png", "a.JPG", "c.webp"), strict=False):
        read_image(validation.folder / entry["file_name"]).save(folder / name)
    (folder / "notes.txt").write_text("no image")
    return folder


def rows(path: Path) -> list[dict[str, Any]]:
    content: list[dict[str, Any]] = json.loads(path.read_text())
    return content


COCO = ("image_id", "file_name", "category_id", "bbox", "score")


def coco_rows(path: Path) -> list[dict[str, Any]]:
    """The rows of a results file without the fields that are for browsing."""
    return [{name: row[name] for name in COCO} for row in rows(path)]


def expected_rows(detector: Detector, paths: list[Path], ids: list[int]) -> list[dict[str, Any]]:
    """What :meth:`Detector.predict` finds, as COCO results."""
    expected = []
    for image_id, path, found in zip(ids, paths, detector.predict(paths), strict=True):
        for box, score, label in zip(found.boxes.tolist(), found.scores.tolist(), found.labels.tolist(), strict=True):
            xywh = [box[0], box[1], box[2] - box[0], box[3] - box[1]]
            expected.append(
                {
                    "image_id": image_id,
                    "file_name": str(path),
                    "category_id": label,
                    "bbox": [round(value, 3) for value in xywh],
                    "score": round(score, 6),
                }
            )
    return expected


@pytest.mark.parametrize("kind", ["detector", "refined"])
def test_results_are_the_detections(kind: str, request: pytest.FixtureRequest, photos: Path, tmp_path: Path) -> None:
    model: Detector = request.getfixturevalue(kind)
    paths = [photos / "a.JPG", photos / "b.png", photos / "c.webp"]
    predicted = predict(model, [photos], tmp_path / "out")
    assert predicted.results == tmp_path / "out" / "results.json"
    assert coco_rows(predicted.results) == expected_rows(model, paths, [1, 2, 3])
    assert predicted.skipped == []


def test_files_and_folders_are_taken_in_the_given_order(photos: Path) -> None:
    assert find_images([photos / "c.webp", photos, photos / "notes.txt"]) == [
        photos / "c.webp",
        photos / "a.JPG",
        photos / "b.png",
        photos / "c.webp",
        photos / "notes.txt",
    ]


def test_every_image_gets_a_picture(detector: Detector, photos: Path, tmp_path: Path) -> None:
    predicted = predict(detector, [photos / "b.png", photos / "c.webp"], tmp_path / "out", threshold=0.0)
    assert predicted.pictures == [tmp_path / "out/pictures/b.png", tmp_path / "out/pictures/c.png"]
    assert sorted(path.name for path in (tmp_path / "out").rglob("*")) == ["b.png", "c.png", "pictures", "results.json"]
    for path, source in zip(predicted.pictures, ("b.png", "c.webp"), strict=True):
        with Image.open(path) as picture, Image.open(photos / source) as original:
            assert picture.format == "PNG"
            assert max(picture.size) == 640
            assert picture.width / picture.height == pytest.approx(original.width / original.height, abs=0.01)


def test_nothing_is_drawn_above_the_best_score(detector: Detector, photos: Path, tmp_path: Path) -> None:
    plain, drawn = (
        predict(detector, [photos / "b.png"], tmp_path / str(threshold), threshold=threshold).pictures[0].read_bytes()
        for threshold in (1.0, 0.0)
    )
    original = read_image(photos / "b.png")
    scale = 640 / max(original.size)
    enlarged = original.resize(
        (round(original.width * scale), round(original.height * scale)), Image.Resampling.BICUBIC
    )
    assert read_image(tmp_path / "1.0/pictures/b.png").tobytes() == enlarged.tobytes()
    assert plain != drawn


def test_a_broken_image_is_skipped_and_named(detector: Detector, photos: Path, tmp_path: Path) -> None:
    whole = (photos / "b.png").read_bytes()
    (photos / "b.png").write_bytes(whole[: len(whole) // 2])
    predicted = predict(detector, [photos], tmp_path / "out")
    assert len(predicted.skipped) == 1
    assert f"{photos / 'b.png'} is not a readable image" in predicted.skipped[0]
    assert [path.name for path in predicted.pictures] == ["a.png", "c.png"]
    assert coco_rows(predicted.results) == expected_rows(detector, [photos / "a.JPG", photos / "c.webp"], [1, 3])


def test_images_of_one_name_get_two_pictures(detector: Detector, photos: Path, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    read_image(photos / "c.webp").save(tmp_path / "other" / "b.png")
    read_image(photos / "c.webp").save(tmp_path / "other" / "b_2.png")
    predicted = predict(detector, [photos / "b.png", tmp_path / "other"], tmp_path / "out")
    assert [path.name for path in predicted.pictures] == ["b.png", "b_2.png", "b_2_2.png"]
    assert all(path.is_file() for path in predicted.pictures)
    assert {row["file_name"] for row in rows(predicted.results)} == {
        str(photos / "b.png"),
        str(tmp_path / "other" / "b.png"),
        str(tmp_path / "other" / "b_2.png"),
    }


def test_a_free_name_is_kept() -> None:
    assert free_name(Path("a/b.png"), {anywhere(Path("a/c.png"))}) == Path("a/b.png")
    assert free_name(Path("a/b.png"), {anywhere(Path("a/b.png")), anywhere(Path("a/b_2.png"))}) == Path("a/b_3.png")


def test_names_that_some_systems_take_for_one_are_two(detector: Detector, photos: Path, tmp_path: Path) -> None:
    """Windows and macOS would write the second picture over the first."""
    for name in ("B.png", "\u00e9.png", "e\u0301.png"):
        shutil.copy(photos / "b.png", tmp_path / name)
    images = [photos / "b.png", tmp_path / "B.png", tmp_path / "\u00e9.png", tmp_path / "e\u0301.png"]
    pictures = predict(detector, images, tmp_path / "out").pictures
    assert [picture.name for picture in pictures] == ["b.png", "B_2.png", "\u00e9.png", "e\u0301_2.png"]


def test_before_and_after_pair_up(refined: RefinedDetector, photos: Path) -> None:
    found = detect_image(refined, read_image(photos / "b.png"))
    assert found.keys() == {"before", "after"}
    assert torch.equal(found["before"].scores, found["after"].scores)
    assert torch.equal(found["before"].labels, found["after"].labels)
    assert (found["before"].boxes != found["after"].boxes).any(-1).all()
    moves: dict[tuple[float, ...], set[tuple[float, ...]]] = defaultdict(set)
    for before, after in zip(found["before"].boxes.tolist(), found["after"].boxes.tolist(), strict=True):
        moves[tuple(before)].add(tuple(after))
    assert len(moves) == 12  # queries, each with all of its categories
    assert all(len(ends) == 1 for ends in moves.values())


def test_before_is_what_the_plain_detector_finds(refined: RefinedDetector, detector: Detector, photos: Path) -> None:
    image = read_image(photos / "b.png")
    plain, both = detect_image(detector, image), detect_image(refined, image)
    assert plain.keys() == {"before"}
    assert torch.equal(plain["before"].boxes, both["before"].boxes)
    assert torch.equal(both["after"].boxes, refined.predict([image])[0].boxes)


def test_no_inputs_are_an_error(detector: Detector, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no images|none of 0 images"):
        predict(detector, [], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_missing_input_is_not_found(detector: Detector, photos: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no file or folder at .*none\.png; check the path"):
        predict(detector, [photos, tmp_path / "none.png"], tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", [None, "notes.txt"], ids=["empty", "other files"])
def test_a_folder_without_images_is_an_error(name: str | None, detector: Detector, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    if name:
        (tmp_path / "folder" / name).write_text("text")
    expected = r"folder holds no images; expected files that end in \.avif, \.bmp, \.gif, .*\.jpg, \.png, .*\.webp"
    with pytest.raises(FileNotFoundError, match=expected):
        predict(detector, [tmp_path / "folder"], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_file_is_no_output(detector: Detector, photos: Path) -> None:
    with pytest.raises(NotADirectoryError, match=r"notes\.txt is a file; name a folder for the results"):
        predict(detector, [photos], photos / "notes.txt")
    assert (photos / "notes.txt").read_text() == "no image"


def test_no_image_is_written_over(detector: Detector, photos: Path) -> None:
    """Pictures have the images' names."""
    pictures = photos.rename(photos.with_name("pictures"))
    images = {path: path.read_bytes() for path in pictures.iterdir()}
    with pytest.raises(
        FileExistsError, match=r"b\.png is a file that is read, and would be lost; name another to write"
    ):
        predict(detector, [pictures], pictures.parent)
    assert images == {path: path.read_bytes() for path in pictures.iterdir()}


def test_results_that_are_a_folder_are_told_before_the_work(detector: Detector, photos: Path) -> None:
    (photos / "results.json").mkdir()
    with pytest.raises(IsADirectoryError, match=r"results\.json is a folder; name a file to write$"):
        predict(detector, [photos], photos)
    assert not (photos / "pictures").exists()


def test_images_that_are_all_broken_are_an_error(detector: Detector, tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        (tmp_path / name).write_text("no image")
    with pytest.raises(ValueError, match=r"^none of 2 images could be read: .*a\.png is not a readable image"):
        predict(detector, [tmp_path / "a.png", tmp_path / "b.png"], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_more_pairs_than_are_kept_still_pair_up(make_detector: Callable[..., Detector], photos: Path) -> None:
    detector = make_detector()
    detector.profile = replace(detector.profile, choice=Choice(limit=7))
    torch.manual_seed(3)
    model = RefinedDetector(detector, Refiner(detector.channels, detector.strides))
    found = detect_image(model, read_image(photos / "b.png"))
    assert len(found["before"].scores) == len(found["after"].scores) == 7
    assert torch.equal(found["before"].labels, found["after"].labels)


def test_detrex_results_are_clipped_and_still_pair_up(
    make_detector: Callable[..., Detector], photos: Path, tmp_path: Path
) -> None:
    """Boxes are cut at the borders in the results; pictures show the rows that were selected, before and after."""
    detector = make_detector()
    detector.profile = replace(detector.profile, layout="detrex")
    outside = detector.get_parameter("network.refpoint_embed.weight")
    outside[:6] = torch.tensor([6.0, 0.0, -6.0, 0.0])  # at the right border and thin
    detector.get_parameter("network.bbox_embed.layers.2.bias")[0] = 3.0
    torch.manual_seed(3)
    model = RefinedDetector(detector, Refiner(detector.channels, detector.strides))
    image = read_image(photos / "b.png")
    found = detect_image(model, image)
    assert len(found["before"].scores) == len(found["after"].scores) == 12 * 6
    assert torch.equal(found["before"].scores, found["after"].scores)
    assert found["after"].boxes.max() > image.width
    predicted = predict(model, [photos / "b.png"], tmp_path / "out", threshold=0.0)
    assert len(predicted.pictures) == 1
    written = rows(predicted.results)
    assert 0 < len(written) <= 12 * 6
    for x, y, width, height in (row["bbox"] for row in written):
        assert x >= 0
        assert y >= 0
        assert width > 0
        assert height > 0
        assert x + width <= image.width + 1e-2
        assert y + height <= image.height + 1e-2
    assert coco_rows(predicted.results) == expected_rows(model, [photos / "b.png"], [1])


def test_what_is_passed_over_is_counted(photos: Path) -> None:
    assert passed_over([photos]) == "1 .txt"
    (photos / "more").mkdir()
    for name in ("IMG_1.HEIC", "IMG_2.heic", "notes.txt", "README", ".hidden"):
        (photos / name).touch()
    expected = "2 .heic, 1 .txt, 1 without an ending, 1 folder (--recursive goes into them)"
    assert passed_over([photos]).startswith(expected)
    assert passed_over([photos / "IMG_1.HEIC"]) == ""


def test_folders_in_folders_count_where_that_is_wished(photos: Path) -> None:
    (photos / "more").mkdir()
    Image.new("RGB", (9, 9)).save(photos / "more" / "deep.png")
    assert photos / "more" / "deep.png" not in find_images([photos])
    assert photos / "more" / "deep.png" in find_images([photos], recursive=True)
    assert passed_over([photos], recursive=True) == "1 .txt"


@pytest.mark.parametrize("suffix", ["gif", "avif", "jfif", "tiff", "JPG"])
def test_other_kinds_of_images_are_read(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"image.{suffix}"
    Image.new("RGB", (20, 10), "red").save(path, "JPEG" if suffix in ("jfif", "JPG") else None)
    assert find_images([tmp_path]) == [path]
    assert read_image(path).size == (20, 10)


def test_boxes_are_of_the_upright_picture(detector: Detector, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    pixels = np.random.default_rng(0).integers(0, 256, (60, 90, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "turned.png", exif=exif)
    Image.fromarray(pixels).transpose(Image.Transpose.ROTATE_270).save(tmp_path / "upright.png")
    done = [predict(detector, [tmp_path / name], tmp_path / name[:-4]) for name in ("turned.png", "upright.png")]
    turned, upright = ([(row["bbox"], row["score"]) for row in json.loads(item.results.read_text())] for item in done)
    assert turned == upright
    with Image.open(done[0].pictures[0]) as first, Image.open(done[1].pictures[0]) as second:
        assert first.size == second.size
        assert first.height > first.width


def pixels(box: list[float], size: tuple[int, int]) -> list[float]:
    """A box in fractions, in pixels of an image of (width, height)."""
    return [value * side for value, side in zip(box, size * 2, strict=True)]


def test_rows_say_where_boxes_were_and_are(refined: RefinedDetector, detector: Detector, photos: Path) -> None:
    """In fractions of the image, as tools that browse images want them."""
    path = photos / "b.png"
    size = read_image(path).size
    found = rows(predict(refined, [path], photos / "refined").results)
    plain = rows(predict(detector, [path], photos / "plain").results)
    assert len(found) == len(plain) == 12 * 6
    for after, before in zip(found, plain, strict=True):
        assert list(after) == [*COCO, "label", "before", "after"]
        assert list(before) == [*COCO, "label", "before"]
        assert after["label"] == before["label"] == detector.category_names[after["category_id"]]
        assert pixels(after["after"], size) == pytest.approx(after["bbox"], abs=2e-3)
        assert pixels(after["before"], size) == pytest.approx(before["bbox"], abs=2e-3)
        assert after["before"] == before["before"] != after["after"]


def test_low_scores_are_left_out_where_that_is_wished(refined: RefinedDetector, photos: Path) -> None:
    everything = rows(predict(refined, [photos], photos / "all").results)
    low, high = sorted({row["score"] for row in everything})[len(everything) // 2 :][:2]
    least = (low + high) / 2
    some = rows(predict(refined, [photos], photos / "some", least=least).results)
    assert some == [row for row in everything if row["score"] >= least]
    assert 0 < len(some) < len(everything)
