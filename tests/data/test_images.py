"""Picture files of every kind, and what becomes of their pixels."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageOps

from refinebox.data.images import read_header, read_image


def noise(height: int, width: int) -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


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


def turned(path: Path, orientation: int, size: tuple[int, int] = (9, 5)) -> Path:
    """A picture of (width, height) as stored whose EXIF block says how it was held."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(noise(size[1], size[0])).save(path, exif=exif)
    return path


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tiff", "avif"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_images_are_turned_as_pillow_turns_them(orientation: int, suffix: str, tmp_path: Path) -> None:
    path = turned(tmp_path / f"image.{suffix}", orientation)
    with Image.open(path) as image:
        expected = ImageOps.exif_transpose(image).convert("RGB")
    found = read_image(path)
    assert found.size == expected.size == ((9, 5) if orientation < 5 else (5, 9))
    np.testing.assert_array_equal(np.asarray(found), np.asarray(expected))


@pytest.mark.parametrize("orientation", range(5, 9))
def test_an_image_is_turned_as_it_was_labelled(orientation: int, tmp_path: Path) -> None:
    path = turned(tmp_path / "image.png", orientation)
    for upright in (True, False):
        assert read_image(path, (5, 9), upright=upright).size == (5, 9)
        assert read_image(path, (9, 5), upright=upright).tobytes() == noise(5, 9).tobytes()
        assert read_image(path, (10, 18), upright=upright).size == (5, 9)


@pytest.mark.parametrize(("orientation", "size"), [(3, (9, 5)), (6, (7, 7))])
def test_where_sizes_do_not_tell_others_decide(orientation: int, size: tuple[int, int], tmp_path: Path) -> None:
    path = turned(tmp_path / "image.png", orientation, size)
    assert read_image(path, size, upright=False).tobytes() == noise(*size[::-1]).tobytes()
    assert read_image(path, size, upright=True).tobytes() == read_image(path).tobytes() != noise(*size[::-1]).tobytes()


@pytest.mark.parametrize("value", [0, 9, 77])
def test_an_orientation_that_does_not_exist_is_none(value: int, tmp_path: Path) -> None:
    assert read_image(turned(tmp_path / "image.png", value)).tobytes() == noise(5, 9).tobytes()


def test_a_damaged_exif_block_is_none(tmp_path: Path) -> None:
    Image.fromarray(noise(5, 9)).save(tmp_path / "image.png", exif=b"Exif\x00\x00MM\x00\x2a\xff\xff")
    assert read_image(tmp_path / "image.png").size == (9, 5)


def test_an_image_of_another_shape_than_labelled_is_an_error(tmp_path: Path) -> None:
    Image.fromarray(noise(50, 90)).save(tmp_path / "image.png")
    for same in ((90, 50), (180, 100), (45, 25), (134, 75)):
        assert read_image(tmp_path / "image.png", same).size == (90, 50)
    for other in ((50, 90), (90, 60), (100, 50)):
        expected = rf"image\.png is 90 × 50 pixels, but its annotations are of {other[0]} × {other[1]}$"
        with pytest.raises(ValueError, match=expected):
            read_image(tmp_path / "image.png", other)


DEEP = {"8": 1, "10": 4, "12": 16, "14": 64, "16": 257}


@pytest.mark.parametrize("bits", DEEP)
@pytest.mark.parametrize("suffix", ["png", "tiff"])
def test_deep_grey_is_its_8_bit_picture(suffix: str, bits: str, tmp_path: Path) -> None:
    grey = np.random.default_rng(0).integers(0, 256, (20, 30), dtype=np.uint16)
    grey[0, :2] = 0, 255
    Image.fromarray(grey * np.uint16(DEEP[bits])).save(tmp_path / f"image.{suffix}")
    found = np.asarray(read_image(tmp_path / f"image.{suffix}"))
    assert (found == found[..., :1]).all()
    assert np.abs(found[..., 0].astype(int) - grey).max() <= (bits not in ("8", "16"))


@pytest.mark.parametrize("scale", [1.0, 255.0, 65535.0])
def test_float_grey_is_scaled_from_black_to_white(scale: float, tmp_path: Path) -> None:
    grey = np.linspace(0, 1, 600, dtype=np.float32).reshape(20, 30)
    Image.fromarray(grey * np.float32(scale)).save(tmp_path / "image.tiff")
    np.testing.assert_allclose(np.asarray(read_image(tmp_path / "image.tiff"))[..., 0], 255 * grey, atol=0.51)


@pytest.mark.parametrize("kind", ["uint16", "int32", "float32"])
def test_a_narrow_range_is_spread(kind: str, tmp_path: Path) -> None:
    """As a thermal camera's, whose values lie far from 0 and close together."""
    ramp = np.linspace(29_000, 31_000, 600).reshape(20, 30).astype(kind)
    Image.fromarray(ramp).save(tmp_path / "image.tiff")
    found = np.asarray(read_image(tmp_path / "image.tiff"))[..., 0]
    assert (found.min(), found.max()) == (0, 255)
    np.testing.assert_allclose(found, np.linspace(0, 255, 600).reshape(20, 30), atol=0.7)


def test_values_that_are_not_finite_are_black(tmp_path: Path) -> None:
    grey = np.linspace(0, 1, 600, dtype=np.float32).reshape(20, 30)
    grey[3, :3] = np.nan, np.inf, -np.inf
    Image.fromarray(grey).save(tmp_path / "image.tiff")
    assert np.asarray(read_image(tmp_path / "image.tiff"))[3, :3].max() == 0


def test_a_picture_of_one_value_is_black_or_its_own(tmp_path: Path) -> None:
    for value, expected in ((0, 0), (65535, 0), (777, 0)):
        Image.fromarray(np.full((4, 4), value, dtype=np.uint16)).save(tmp_path / "image.png")
        assert set(np.unique(np.asarray(read_image(tmp_path / "image.png")))) == {expected}


def test_a_palette_with_transparency_is_its_colours_without_a_warning(tmp_path: Path) -> None:
    source = Image.fromarray(noise(6, 8)).quantize(16)
    source.save(tmp_path / "image.png", transparency=bytes(range(16)))
    assert read_image(tmp_path / "image.png").tobytes() == source.convert("RGB").tobytes()


def test_the_first_frame_counts(tmp_path: Path) -> None:
    first, second = (Image.new("RGB", (8, 6), colour) for colour in ("red", "blue"))
    for suffix in ("gif", "png", "webp", "tiff", "avif"):
        path = tmp_path / f"image.{suffix}"
        first.save(path, save_all=True, append_images=[second])
        assert read_header(path).frames == 2
        red, _, blue = read_image(path).getpixel((3, 3))
        assert red > 200 > 50 > blue


def test_a_header_is_told_without_decoding(tmp_path: Path) -> None:
    header = read_header(turned(tmp_path / "image.jpg", 6))
    assert (header.size, header.upright, header.orientation, header.frames, header.deep) == (
        (9, 5),
        (5, 9),
        6,
        1,
        False,
    )
    Image.fromarray(noise(5, 9)[..., 0].astype(np.uint16)).save(tmp_path / "deep.png")
    assert read_header(tmp_path / "deep.png").deep


def test_more_pixels_can_be_allowed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "panorama.png"
    Image.fromarray(noise(40, 50)).save(path)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(ValueError, match=r"panorama\.png is not a readable image: .*; .*REFINEBOX_MAX_PIXELS=2000$"):
        read_image(path)
    monkeypatch.setenv("REFINEBOX_MAX_PIXELS", "2000")
    assert read_image(path).size == (50, 40)


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


def test_whatever_a_decoder_raises_is_said(tmp_path: Path) -> None:
    """A TIFF whose second page lacks its width, of which Pillow raises a TypeError."""
    path = tmp_path / "pages.tiff"
    Image.new("RGB", (4, 4)).save(path, save_all=True, append_images=[Image.new("RGB", (4, 4))])
    first, width, second = path.read_bytes().rpartition(b"\x00\x01\x04\x00")  # tag 256, a long number
    assert width
    path.write_bytes(first + b"\xff\x01\x04\x00" + second)
    with pytest.raises(ValueError, match=r"pages\.tiff is not a readable image: Missing dimensions$"):
        read_image(path)
