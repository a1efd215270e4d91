"""None"""

from pathlib import Path

import numpy as np
import pytest
from coco_files import noise
from PIL import Image

from refinebox.data.images import (
    read_image,
)


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
