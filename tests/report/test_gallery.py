"""Pictures of the images that gain and lose most."""

import base64
import io
from pathlib import Path

import numpy as np
import pytest
from known_boxes import ROWS, TRUTH
from PIL import Image

from refinebox.analysis.gains import Gain, place
from refinebox.evaluation.overlaps import Objects
from refinebox.report import gallery

OBJECTS = Objects.of(TRUTH)
BEFORE, AFTER = ROWS, ROWS.copy()
AFTER[4, 4] = 20  # the second object's box becomes perfect


def drawn(folder: Path) -> list[gallery.Drawn]:
    data = TRUTH.__class__(TRUTH.images, TRUTH.annotations, TRUTH.categories, folder, {})
    return gallery.draw(data, OBJECTS, place(BEFORE, OBJECTS), place(AFTER, OBJECTS), [Gain(1, 0.25)])


def test_a_picture_is_a_small_jpeg_in_an_address(tmp_path: Path) -> None:
    Image.new("RGB", (200, 200), "navy").save(tmp_path / "1.png")
    (picture,) = drawn(tmp_path)
    assert (picture.gain, picture.name) == (Gain(1, 0.25), "1.png")
    assert picture.source
    head, _, content = picture.source.partition(",")
    assert head == "data:image/jpeg;base64"
    with Image.open(io.BytesIO(base64.b64decode(content))) as image:
        assert (image.format, image.size) == ("JPEG", (gallery.SIDE, gallery.SIDE))
        assert len(image.convert("RGB").getcolors(10**6) or []) > 10  # boxes are drawn on it


@pytest.mark.parametrize("content", [None, b"not an image"])
def test_an_image_that_cannot_be_read_is_told(content: bytes | None, tmp_path: Path) -> None:
    if content:
        (tmp_path / "1.png").write_bytes(content)
    assert drawn(tmp_path) == [gallery.Drawn(Gain(1, 0.25), "1.png", None)]


def test_moved_boxes_are_drawn_before_and_after() -> None:
    objects, before, after = gallery.layers(TRUTH, OBJECTS, place(BEFORE, OBJECTS), place(AFTER, OBJECTS), np.arange(3))
    assert objects.boxes[1].tolist() == [50, 50, 70, 70]
    assert len(objects.boxes) == 3
    assert before.dashed
    assert before.boxes.tolist() == [[50, 50, 70, 56]]
    assert after.boxes.tolist() == [[50, 50, 70, 70], [0, 0, 20, 16]]
    assert list(after.captions) == ["bowl 0.30 to 1.00"]
