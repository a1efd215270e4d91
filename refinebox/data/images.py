"""A picture file: what its header says, and its pixels in 8-bit RGB, turned as it was labelled."""

import os
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image

Size = tuple[int, int]  # width, height

LIMIT = "REFINEBOX_MAX_PIXELS"  # of an image; Pillow's own limit guards against files that unpack to gigabytes
TURNED = range(5, 9)  # EXIF orientations that exchange width and height
TURNS = (  # what makes an image of orientation 2 to 8 upright
    Image.Transpose.FLIP_LEFT_RIGHT,
    Image.Transpose.ROTATE_180,
    Image.Transpose.FLIP_TOP_BOTTOM,
    Image.Transpose.TRANSPOSE,
    Image.Transpose.ROTATE_270,
    Image.Transpose.TRANSVERSE,
    Image.Transpose.ROTATE_90,
)
DEEP = ("I", "F", "I;16")  # Pillow's modes of more than 8 bits begin so
TOPS = {False: (255, 1023, 4095, 16383, 65535, 2**32 - 1), True: (1, 255, 65535)}  # full scale of integers, of floats


@dataclass(frozen=True)
class Header:
    """What a file says before its pixels are decoded.

    Attributes:
        size: (width, height) as stored, in pixels.
        orientation: EXIF's, 1 to 8; 1 is upright.
        mode: Pillow's name for the kind of pixels.
        frames: how many images the file holds.
    """

    size: Size
    orientation: int
    mode: str
    frames: int

    @property
    def upright(self) -> Size:
        """(width, height) as people see it."""
        return self.size[::-1] if self.orientation in TURNED else self.size

    @property
    def deep(self) -> bool:
        """Whether the pixels have more than 8 bits."""
        return self.mode.startswith(DEEP)


def read_header(path: Path) -> Header:
    """Raises as :func:`read_image` does."""
    with opened(path) as image:
        return header_of(image)


def header_of(image: Image.Image) -> Header:
    """Of an open image; a second picture inside a camera's JPEG is no frame."""
    frames = 1 if image.format in ("MPO", "JPEG") else getattr(image, "n_frames", 1)
    return Header(image.size, orientation_of(image), image.mode, frames)


def orientation_of(image: Image.Image) -> int:
    """EXIF's orientation; 1 where it is missing or none that exists, and of TIFF, which Pillow turns itself."""
    if image.format == "TIFF":
        return 1
    exif = Image.Exif()
    try:
        exif.load(image.info.get("exif", b""))  # not getexif, which decodes the whole of a PNG file
        found = exif.get(ExifTags.Base.Orientation, 1)
    except Exception:  # of a damaged EXIF block, which does not make the pixels unreadable
        return 1
    return found if isinstance(found, int) and 1 <= found <= 8 else 1


def read_image(path: Path | BytesIO, labelled: Size | None = None, *, upright: bool = True) -> Image.Image:
    """The image in 8-bit RGB, turned as EXIF says or, where only that fits the labels, as stored; the first of several.

    Pixels of more than 8 bits are scaled as :func:`to_eight_bits` says.

    Args:
        path: the file, or its content.
        labelled: (width, height) in the annotations, in pixels; the image may be smaller or larger, of the same shape.
        upright: whether to turn where ``labelled`` does not tell, because sides are equal or the turn keeps them.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is no image that can be decoded to its end, is larger than the limit, or has not the shape
            that was labelled; the message names it.
    """
    with opened(path) as image:
        header = header_of(image)
        pixels = to_rgb(image)
        if header.orientation != 1 and turns(header, labelled, upright=upright):
            pixels = pixels.transpose(TURNS[header.orientation - 2])
    if labelled and all(labelled) and not same_shape(pixels.size, labelled):
        raise ValueError(f"{path} is {by(pixels.size)} pixels, but its annotations are of {by(labelled)}")
    return pixels


def turns(header: Header, labelled: Size | None, *, upright: bool = True) -> bool:
    """Whether an image is turned as its EXIF orientation says."""
    if labelled and all(labelled) and header.upright != header.size:
        fitting = [same_shape(size, labelled) for size in (header.upright, header.size)]
        if fitting[0] != fitting[1]:
            return fitting[0]
    return upright


def same_shape(size: Size, labelled: Size) -> bool:
    """Whether one is the other resized, but for the rounding of a side."""
    width, height = labelled[0] * size[1] / labelled[1], labelled[1] * size[0] / labelled[0]
    return abs(width - size[0]) <= 1 or abs(height - size[1]) <= 1


def by(size: Size) -> str:
    """A size for people."""
    return f"{size[0]} × {size[1]}"


@contextmanager
def opened(path: Path | BytesIO) -> Iterator[Image.Image]:
    """An open image; whatever is wrong with it while it is open is said in one line that names it."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's, of files that it reads all the same
            allow(os.environ.get(LIMIT))
            with Image.open(path) as image:
                yield image
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{path} is not there") from error
    except Image.DecompressionBombError as error:
        pixels = re.sub(r"\D", "", str(error).partition(" pixels")[0])
        raise ValueError(
            f"{path} is not a readable image: it has {pixels} pixels, more than the limit against files that unpack to "
            f"gigabytes; if you trust it, set {LIMIT}={pixels}"
        ) from error
    except MemoryError:
        raise
    except Exception as error:  # decoders raise anything where a damaged file leads them
        raise ValueError(f"{path} is not a readable image: {error}") from error


def allow(pixels: str | None) -> None:
    """Raises Pillow's limit to so many pixels an image; it refuses what has more than twice its own number."""
    if pixels and pixels.isdecimal():
        Image.MAX_IMAGE_PIXELS = max(Image.MAX_IMAGE_PIXELS or 0, -(-int(pixels) // 2))


def to_rgb(image: Image.Image) -> Image.Image:
    """In RGB of 8 bits, without transparency."""
    if image.mode.startswith(DEEP):
        return Image.fromarray(to_eight_bits(np.asarray(image))).convert("RGB")
    if image.mode == "P":
        image = image.convert("RGBA")  # a palette may carry transparency that RGB cannot
    return image.convert("RGB")


def to_eight_bits(values: NDArray[np.generic]) -> NDArray[np.uint8]:
    """``[H, W]`` values of 10 bits to floats in 0 to 255, by the range that they have.

    That is the full scale of their bits where the values use half of it, as an 8-bit picture made deeper does, and
    otherwise from the lowest to the highest, as of a thermal camera. Values that are not finite count as the lowest.
    """
    floats = values.dtype.kind == "f"
    exact = values.astype(np.float64)
    finite = np.isfinite(exact)
    low, high = (exact[finite].min(), exact[finite].max()) if finite.any() else (0.0, 0.0)
    top = next((top for top in TOPS[floats] if high <= top), high)
    if low >= 0 and high > top / 2 and low < top / 4:
        low, high = 0.0, float(top)
    scaled = (np.where(finite, exact, low) - low) * (255 / max(high - low, 1e-12))
    return (scaled + 0.5).clip(0, 255).astype(np.uint8)
