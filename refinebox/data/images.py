"""Image files to images in RGB."""

from pathlib import Path

from PIL import Image


def read_image(path: Path) -> Image.Image:
    """The image in RGB, as stored (COCO annotations ignore EXIF rotation).

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is no image that can be decoded to its end; the message names it.
    """
    try:
        with Image.open(path) as image:
            return image.convert("RGB")
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{path} is not there") from error
    except (OSError, SyntaxError, ValueError, RuntimeError, Image.DecompressionBombError) as error:
        raise ValueError(f"{path} is not a readable image: {error}") from error
