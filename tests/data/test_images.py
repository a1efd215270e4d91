import math
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torchvision.transforms.v2 import functional as transforms

from refinebox.data.images import (
    MEAN,
    STD,
    Layout,
    normalise,
    normalise_padded,
    pad,
    preprocess,
    read_image,
    resized,
    to_pixels,
)


def noise(height: int, width: int) -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


ROUNDING = [  # height, width, and what the authors, detectron2 and transformers make of it
    (480, 640, (800, 1066), (800, 1067), (800, 1066)),
    (427, 640, (800, 1199), (800, 1199), (800, 1199)),
    (426, 640, (800, 1201), (800, 1202), (800, 1201)),
    (375, 500, (800, 1066), (800, 1067), (800, 1066)),
    (240, 640, (500, 1333), (500, 1333), (500, 1333)),
    (281, 500, (749, 1332), (749, 1333), (749, 1333)),
    (333, 333, (800, 800), (800, 800), (800, 800)),
    (800, 1000, (800, 1000), (800, 1000), (800, 1000)),
    (1600, 2000, (800, 1000), (800, 1000), (800, 1000)),
]
LAYOUTS: tuple[Layout, ...] = ("authors", "detrex", "transformers")


@pytest.mark.parametrize(("height", "width", "authors", "detrex", "transformers"), ROUNDING)
def test_sizes_are_those_of_the_code_a_detector_comes_from(
    height: int, width: int, authors: tuple[int, int], detrex: tuple[int, int], transformers: tuple[int, int]
) -> None:
    for layout, expected in zip(LAYOUTS, (authors, detrex, transformers), strict=True):
        assert resized(height, width, 800, 1333, layout) == expected
        assert resized(width, height, 800, 1333, layout) == expected[::-1]
    assert resized(height, width, 800, 1333) == authors


def random_sizes() -> list[tuple[int, int]]:
    return [(int(h), int(w)) for h, w in np.random.default_rng(0).integers(1, 1500, (500, 2))]


def test_random_sizes_are_the_detr_authors() -> None:
    for height, width in random_sizes():
        short, long = min(height, width), max(height, width)
        size = 800 if long / short * 800 <= 1333 else max(1, round(1333 * short / long))
        wanted = (short, long) if size == short else (size, int(size * long / short))
        assert resized(height, width, 800, 1333) == (wanted if height < width else wanted[::-1])


def test_random_sizes_are_detectron2s() -> None:
    """Both sides are scaled by one factor and rounded half up."""
    for height, width in random_sizes():
        scale = min(800 / min(height, width), 1333 / max(height, width))
        exact = height * scale, width * scale
        found = resized(height, width, 800, 1333, "detrex")
        for side, wanted in zip(found, exact, strict=True):
            assert side == max(1, math.floor(wanted + 0.5)) or abs(wanted % 1 - 0.5) < 1e-9


def test_random_sizes_are_transformers() -> None:
    reference = pytest.importorskip("transformers.image_transforms", reason="transformers says how it rounds")
    for height, width in random_sizes():
        wanted = reference.get_size_with_aspect_ratio((height, width), 800, 1333)
        if 0 not in wanted:  # of images so thin that transformers cannot shrink them
            assert resized(height, width, 800, 1333, "transformers") == wanted


@pytest.mark.parametrize("layout", LAYOUTS)
def test_thin_images_keep_a_pixel(layout: Layout) -> None:
    height, width = resized(1, 5000, 800, 1333, layout)
    assert height == 1
    assert width >= 1333


def test_the_layout_decides_the_input_size() -> None:
    image = Image.new("RGB", (64, 48))
    widths = {layout: preprocess(image, 80, 133, layout).shape[-1] for layout in LAYOUTS}
    assert widths == {"authors": 106, "detrex": 107, "transformers": 106}


def test_a_stored_image_is_read_unchanged(tmp_path: Path) -> None:
    pixels = noise(5, 7)
    Image.fromarray(pixels).save(tmp_path / "image.png")
    np.testing.assert_array_equal(np.asarray(read_image(tmp_path / "image.png")), pixels)


@pytest.mark.parametrize("mode", ["L", "1", "P", "CMYK", "RGBA", "LA"])
def test_every_mode_becomes_rgb(mode: str, tmp_path: Path) -> None:
    path = tmp_path / "image.tiff"
    source = Image.fromarray(noise(6, 8)).convert(mode)
    source.save(path)
    image = read_image(path)
    assert image.mode == "RGB"
    assert image.tobytes() == source.convert("RGB").tobytes()


def test_exif_rotation_is_ignored(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(noise(5, 9)).save(tmp_path / "image.jpg", exif=exif)
    assert read_image(tmp_path / "image.jpg").size == (9, 5)


@pytest.mark.parametrize("suffix", ["jpg", "png", "bmp", "webp"])
@pytest.mark.parametrize("share", [0.0, 0.1, 0.9])
def test_a_truncated_image_is_named(suffix: str, share: float, tmp_path: Path) -> None:
    path = tmp_path / f"broken.{suffix}"
    Image.fromarray(noise(40, 50)).save(path)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(ValueError, match=rf"broken\.{suffix} is not a readable image: "):
        read_image(path)


def test_a_corrupt_png_is_named(tmp_path: Path) -> None:
    path = tmp_path / "broken.png"
    Image.fromarray(noise(40, 50)).save(path)
    content = bytearray(path.read_bytes())
    content[100] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"broken\.png is not a readable image: "):
        read_image(path)


def test_what_pillow_calls_a_wrong_value_is_named(tmp_path: Path) -> None:
    """Pillow raises a plain ValueError, which names no file, where the first chunk of a PNG file is too short."""
    path = tmp_path / "broken.png"
    Image.fromarray(noise(40, 50)).save(path)
    content = bytearray(path.read_bytes())
    content[11] = 5  # the length of the header, 13
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"broken\.png is not a readable image: Truncated IHDR chunk"):
        read_image(path)


def test_a_text_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "page.jpg"
    path.write_text("<html>404</html>")
    with pytest.raises(ValueError, match=r"page\.jpg is not a readable image: cannot identify"):
        read_image(path)


def test_a_decompression_bomb_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "bomb.png"
    Image.fromarray(noise(40, 50)).save(path)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(ValueError, match=r"bomb\.png is not a readable image: .*limit"):
        read_image(path)


def test_a_missing_image_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"none\.jpg is not there$"):
        read_image(tmp_path / "none.jpg")


def test_normalised_pixels_are_worked_out_by_hand() -> None:
    pixels = noise(4, 6)
    expected = (pixels / 255 - np.array(MEAN)) / np.array(STD)
    normalised = normalise(torch.from_numpy(pixels.transpose(2, 0, 1)))
    torch.testing.assert_close(normalised, torch.tensor(expected.transpose(2, 0, 1), dtype=torch.float32))


def test_preprocessing_resizes_as_torchvision_does_on_pil_images() -> None:
    image = Image.fromarray(noise(50, 90))
    expected = transforms.pil_to_tensor(transforms.resize(image, [32, 57]))
    assert torch.equal(to_pixels(image, 32, 100), expected)
    assert torch.equal(preprocess(image, 32, 100), normalise(expected))


def test_an_image_of_the_right_size_is_not_resampled() -> None:
    pixels = noise(32, 57)
    assert torch.equal(to_pixels(Image.fromarray(pixels), 32, 100), torch.from_numpy(pixels).permute(2, 0, 1))


def test_normalising_leaves_the_pixels_alone() -> None:
    pixels = torch.from_numpy(noise(4, 6)).permute(2, 0, 1)
    kept = pixels.clone()
    normalise(pixels)
    assert torch.equal(pixels, kept)


def test_a_batch_is_normalised_as_its_images_are_and_padding_stays_zero() -> None:
    images = [torch.from_numpy(noise(*size)).permute(2, 0, 1) for size in ((5, 9), (7, 4), (7, 9))]
    expected, _ = pad([normalise(image) for image in images])
    batch, sizes = pad(images)
    assert batch.dtype == torch.uint8
    assert torch.equal(normalise_padded(batch, sizes), expected)
    assert not expected[0, :, 5:].any()


def test_padding_is_zero_at_the_right_and_the_bottom() -> None:
    images = [torch.full((3, 2, 5), 1.0), torch.full((3, 4, 3), 2.0)]
    batch, sizes = pad(images)
    expected = torch.zeros(2, 3, 4, 5)
    expected[0, :, :2, :] = 1
    expected[1, :, :, :3] = 2
    torch.testing.assert_close(batch, expected, rtol=0, atol=0)
    assert sizes.tolist() == [[2, 5], [4, 3]]


def test_a_single_image_is_not_padded() -> None:
    image = torch.rand(3, 4, 7)
    batch, sizes = pad([image])
    torch.testing.assert_close(batch[0], image, rtol=0, atol=0)
    assert sizes.tolist() == [[4, 7]]
