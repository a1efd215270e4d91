"""Lines that any image shows, captions that stay inside."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from PIL import Image

from refinebox.detection.output import Detections
from refinebox.report.pictures import AFTER, BEFORE, TRUTH, Colour, Layer, contrast, detection_layers, picture

BLACK = (0, 0, 0)
SIDE = 640


def black(width: int = SIDE, height: int = SIDE) -> Image.Image:
    return Image.new("RGB", (width, height), BLACK)


def boxes(*corners: tuple[float, float, float, float]) -> torch.Tensor:
    return torch.tensor(corners).reshape(-1, 4)


def coloured(image: Image.Image, colour: Colour) -> tuple[int, int, int, int] | None:
    """The bounds of all pixels of a colour, (left, top, right, bottom) with the last two outside."""
    return Image.fromarray((np.asarray(image) == colour).all(-1)).getbbox()


@pytest.mark.parametrize("point", [(200, 100), (300, 150), (200, 200), (100, 150), (109, 100)])
def test_a_solid_box_is_a_line_along_its_edges(point: tuple[int, int]) -> None:
    drawn = picture(black(), [Layer(boxes((100, 100, 300, 200)), AFTER)])
    assert drawn.getpixel(point) == AFTER
    assert drawn.getpixel((200, 150)) == BLACK
    assert drawn.getpixel((310, 150)) == BLACK


def test_nothing_is_drawn_far_from_the_box() -> None:
    bounds = coloured(picture(black(), [Layer(boxes((100, 100, 300, 200)), AFTER, weight=0.5)]), AFTER)
    assert bounds == (100, 100, 301, 201)


@pytest.mark.parametrize("start", [(100, 100), (300, 100)])
def test_dashes_alternate_with_gaps_of_the_same_length(start: tuple[int, int]) -> None:
    drawn = picture(black(), [Layer(boxes((100, 100, 300, 200)), BEFORE, dashed=True)])
    down = start == (300, 100)
    colours = [drawn.getpixel((300, 100 + step) if down else (100 + step, 100)) for step in (3, 9, 15, 21, 27, 33)]
    assert colours == [BEFORE, BLACK] * 3


def test_the_last_dash_ends_at_the_corner() -> None:
    bounds = coloured(picture(black(), [Layer(boxes((100, 100, 297, 197)), BEFORE, dashed=True, weight=0.5)]), BEFORE)
    assert bounds == (100, 100, 298, 198)


@pytest.mark.parametrize(("side", "weight", "width"), [(640, 1, 2), (640, 0.5, 1), (1600, 1, 5), (4000, 2, 24)])
def test_lines_scale_with_the_picture(side: int, weight: float, width: int) -> None:
    drawn = picture(black(side, side), [Layer(boxes((100, 300, 600, 600)), TRUTH, weight=weight)])
    column = [drawn.getpixel((300, row)) for row in range(250, 350)]
    assert column.count(TRUTH) == width


@pytest.mark.parametrize("colour", [BEFORE, AFTER, TRUTH])
@pytest.mark.parametrize("ground", ["white", "black", (230, 190, 200), (80, 30, 160), BEFORE, AFTER])
def test_a_line_stands_out_from_any_image(colour: Colour, ground: str | Colour) -> None:
    """On both sides of a line something is far from its brightness, whatever the image is."""
    image = Image.new("RGB", (SIDE, SIDE), ground)
    grey = np.asarray(picture(image, [Layer(boxes((100, 100, 300, 200)), colour)]).convert("L"), dtype=int)
    assert np.ptp(grey[150, 95:106]) > 120


def test_dashed_and_solid_are_told_apart_without_colours() -> None:
    """As seen in grey, and by those who see no red, green or blue: their brightness is far apart."""
    colours = np.array([BEFORE, AFTER], dtype=float)
    for weights in ((0.299, 0.587, 0.114), (0, 1, 0), (0.5, 0.5, 0)):
        before, after = colours @ np.array(weights)
        assert abs(before - after) > 100, weights
    assert (contrast(BEFORE), contrast(AFTER)) == ((0, 0, 0), (255, 255, 255))


@pytest.mark.parametrize("dashed", [True, False])
def test_a_box_without_area_is_drawn_without_error(dashed: bool) -> None:
    drawn = picture(black(), [Layer(boxes((50, 60, 50, 60)), AFTER, dashed=dashed, captions=["point"])])
    assert drawn.size == (SIDE, SIDE)


def test_later_layers_cover_earlier_ones() -> None:
    layers = [Layer(boxes((100, 100, 300, 200)), colour) for colour in (BEFORE, AFTER)]
    drawn = picture(black(), layers)
    assert coloured(drawn, BEFORE) is None
    assert coloured(drawn, AFTER) is not None


def test_the_image_itself_is_left_alone() -> None:
    image = black()
    picture(image, [Layer(boxes((100, 100, 300, 200)), AFTER)])
    assert image.tobytes() == black().tobytes()


def test_small_images_are_enlarged_with_their_boxes() -> None:
    drawn = picture(black(64, 32), [Layer(boxes((10, 5, 50, 25)), AFTER, weight=0.5)])
    assert drawn.size == (640, 320)
    assert coloured(drawn, AFTER) == (100, 50, 501, 251)


@pytest.mark.parametrize("size", [(640, 480), (480, 640), (1000, 10)])
def test_large_images_keep_their_size(size: tuple[int, int]) -> None:
    assert picture(black(*size), []).size == size


def test_a_caption_stands_above_its_box() -> None:
    layer = Layer(boxes((100, 100, 300, 200)), AFTER, captions=["cat 0.90"])
    drawn = picture(black(), [layer])
    plain = picture(black(), [Layer(layer.boxes, AFTER)])
    bounds = coloured(drawn, AFTER)
    assert bounds is not None
    assert bounds[1] < 95
    assert drawn.crop((0, 102, SIDE, SIDE)).tobytes() == plain.crop((0, 102, SIDE, SIDE)).tobytes()
    assert drawn.getpixel((101, 99)) == AFTER


def test_a_caption_at_the_edge_stays_in_the_picture() -> None:
    drawn = picture(black(), [Layer(boxes((-50, -50, 200, 200)), AFTER, captions=["cat"])])
    assert drawn.getpixel((0, 0)) == AFTER


@pytest.fixture
def found() -> Callable[[float], Detections]:
    def detections(shift: float) -> Detections:
        corners = boxes((0, 0, 10, 10), (20, 20, 40, 40), (50, 50, 60, 60)) + shift
        return Detections(corners, torch.tensor([0.9, 0.5, 0.25]), torch.tensor([1, 2, 1]))

    return detections


@pytest.mark.parametrize(("threshold", "count"), [(0.0, 3), (0.25, 3), (0.3, 2), (0.5, 2), (0.6, 1), (0.95, 0)])
def test_detections_below_the_threshold_are_not_drawn(
    threshold: float, count: int, found: Callable[[float], Detections]
) -> None:
    dashed, solid = detection_layers(found(0), found(1), {}, threshold)
    assert torch.equal(dashed.boxes, found(0).boxes[:count])
    assert torch.equal(solid.boxes, found(1).boxes[:count])
    assert len(solid.captions) == count


def test_old_boxes_are_dashed_and_new_ones_solid_with_captions(found: Callable[[float], Detections]) -> None:
    dashed, solid = detection_layers(found(0), found(1), {1: "cat"}, 0.5)
    assert (dashed.colour, dashed.dashed, list(dashed.captions)) == (BEFORE, True, [])
    assert (solid.colour, solid.dashed, list(solid.captions)) == (AFTER, False, ["cat 0.90", "2 0.50"])


def test_without_old_boxes_there_is_one_layer(found: Callable[[float], Detections]) -> None:
    (solid,) = detection_layers(None, found(1), {}, 0.5)
    assert not solid.dashed
    assert torch.equal(solid.boxes, found(1).boxes[:2])


@pytest.mark.parametrize("box", [[0, 0, 30, 30], [640, 0, 699, 30], [640, 440, 699, 479], [0, 470, 30, 479]])
def test_captions_stay_inside_the_picture(box: list[float]) -> None:
    image = Image.new("RGB", (700, 480), "white")
    places = torch.tensor([box], dtype=torch.float32), torch.tensor([[300.0, 200, 350, 250]])
    layers = [Layer(place, (255, 0, 0), weight=0.5, captions=["long name 0.99"]) for place in places]
    at_the_edge, free = (int((np.asarray(picture(image, [layer]))[..., 1] == 0).sum()) for layer in layers)
    assert abs(at_the_edge - free) < 200  # nothing of the caption is cut off
