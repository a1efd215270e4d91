"""Images as detectors want them, against the code that the detectors come from."""

import math
import random

import numpy as np
import pytest
import torch
from coco_files import noise
from PIL import Image
from torchvision.transforms.v2 import functional as transforms

from refinebox.data.input_format import MEAN, STD, InputFormat, Rounding, pad, random_crop

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


@pytest.mark.parametrize("side", [1, 2, 5])
def test_a_crop_is_never_of_nothing(side: int) -> None:
    for seed in range(20):
        whole = torch.tensor([[0.0, 0.0, 40.0, 30.0]])
        image, boxes = random_crop(Image.fromarray(noise(30, 40)), whole, side, random.Random(seed))
        assert min(image.size) >= 1
        assert (boxes[:, 2:] > 0).all()


SMALL = InputFormat(short_side=32, long_side=100)
ROUNDINGS: tuple[Rounding, ...] = ("authors", "detrex", "transformers")


def resized(height: int, width: int, short: int, long: int, rounding: Rounding = "authors") -> tuple[int, int]:
    return InputFormat(short_side=short, long_side=long, rounding=rounding).content(height, width)


@pytest.mark.parametrize(("height", "width", "authors", "detrex", "transformers"), ROUNDING)
def test_sizes_are_those_of_the_code_a_detector_comes_from(
    height: int, width: int, authors: tuple[int, int], detrex: tuple[int, int], transformers: tuple[int, int]
) -> None:
    for layout, expected in zip(ROUNDINGS, (authors, detrex, transformers), strict=True):
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


def test_random_sizes_are_mmdetections() -> None:
    """Both sides by the scale that suits the tighter of the two, rounded half up."""
    for height, width in random_sizes():
        scale = min(1333 / max(height, width), 800 / min(height, width))
        wanted = tuple(max(1, int(side * float(scale) + 0.5)) for side in (height, width))
        assert resized(height, width, 800, 1333, "mmdet") == wanted


@pytest.mark.parametrize("size", [(480, 640), (427, 640), (1200, 1600)])
def test_pixels_are_opencvs_but_for_rounding(size: tuple[int, int]) -> None:
    """Which rounds its factors first; Pillow looks at more pixels when it shrinks, and differs by far more."""
    cv2 = pytest.importorskip("cv2", reason="opencv-python is what these pixels are compared with")
    noise = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    form = InputFormat(rounding="mmdet", library="torch", antialias=False)
    found = form.pixels(Image.fromarray(noise)).permute(1, 2, 0).numpy().astype(int)
    wanted = cv2.resize(noise, found.shape[1::-1], interpolation=cv2.INTER_LINEAR).astype(int)
    assert np.abs(found - wanted).max() <= 1


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


@pytest.mark.parametrize("layout", ROUNDINGS)
def test_thin_images_keep_a_pixel(layout: Rounding) -> None:
    height, width = resized(1, 5000, 800, 1333, layout)
    assert height == 1
    assert width >= 1333


def test_the_layout_decides_the_input_size() -> None:
    image = Image.new("RGB", (64, 48))
    widths = {
        layout: InputFormat(short_side=80, long_side=133, rounding=layout).preprocess(image).shape[-1]
        for layout in ROUNDINGS
    }
    assert widths == {"authors": 106, "detrex": 107, "transformers": 106}


def test_normalised_pixels_are_worked_out_by_hand() -> None:
    pixels = noise(4, 6)
    expected = (pixels / 255 - np.array(MEAN)) / np.array(STD)
    normalised = SMALL.normalise(torch.from_numpy(pixels.transpose(2, 0, 1)))
    torch.testing.assert_close(normalised, torch.tensor(expected.transpose(2, 0, 1), dtype=torch.float32))


def test_preprocessing_resizes_as_torchvision_does_on_pil_images() -> None:
    image = Image.fromarray(noise(50, 90))
    expected = transforms.pil_to_tensor(transforms.resize(image, [32, 57]))
    assert torch.equal(SMALL.pixels(image), expected)
    assert torch.equal(SMALL.preprocess(image), SMALL.normalise(expected))


def test_an_image_of_the_right_size_is_not_resampled() -> None:
    pixels = noise(32, 57)
    assert torch.equal(SMALL.pixels(Image.fromarray(pixels)), torch.from_numpy(pixels).permute(2, 0, 1))


def test_normalising_leaves_the_pixels_alone() -> None:
    pixels = torch.from_numpy(noise(4, 6)).permute(2, 0, 1)
    kept = pixels.clone()
    SMALL.normalise(pixels)
    assert torch.equal(pixels, kept)


def test_a_batch_is_normalised_as_its_images_are_and_padding_stays_zero() -> None:
    images = [torch.from_numpy(noise(*size)).permute(2, 0, 1) for size in ((5, 9), (7, 4), (7, 9))]
    expected, _ = pad([SMALL.normalise(image) for image in images])
    batch, sizes = pad(images)
    assert batch.dtype == torch.uint8
    assert torch.equal(SMALL.normalise_padded(batch, sizes), expected)
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


def test_torchvisions_sizes_are_rounded_down() -> None:
    from torchvision.models.detection.transform import GeneralizedRCNNTransform

    theirs = GeneralizedRCNNTransform(800, 1333, [0.0] * 3, [1.0] * 3)
    for height, width in random_sizes()[:40]:
        image = torch.zeros(3, height // 4 + 1, width // 4 + 1)
        resized_image, _ = theirs.resize(image)
        assert resized(*image.shape[-2:], 800, 1333, "torchvision") == tuple(resized_image.shape[-2:])


def test_stretching_forgets_the_proportions() -> None:
    form = InputFormat("stretch", height=64, width=96)
    assert form.content(300, 100) == (64, 96)
    assert form.preprocess(Image.fromarray(noise(30, 10))).shape == (3, 64, 96)
    batch, sizes = form.pad([torch.ones(3, 64, 96)])
    assert (batch.shape, sizes.tolist()) == ((1, 3, 64, 96), [[64, 96]])


@pytest.mark.parametrize(("size", "expected"), [((50, 100), (32, 64)), ((100, 50), (64, 32)), ((7, 3), (64, 27))])
def test_a_letterbox_keeps_them_and_pads_right_and_bottom(size: tuple[int, int], expected: tuple[int, int]) -> None:
    form = InputFormat("letterbox", height=64, width=64)
    assert form.content(*size) == expected
    batch, sizes = form.pad([form.preprocess(Image.fromarray(noise(*size)))])
    assert (batch.shape, sizes.tolist()) == ((1, 3, 64, 64), [list(expected)])
    assert not batch[0, :, expected[0] :].any()
    assert not batch[0, :, :, expected[1] :].any()


def test_sides_are_padded_to_a_multiple() -> None:
    batch, sizes = InputFormat(multiple=32).pad([torch.ones(3, 33, 64), torch.ones(3, 20, 65)])
    assert (batch.shape, sizes.tolist()) == ((2, 3, 64, 96), [[33, 64], [20, 65]])


def test_pixels_may_stay_between_0_and_1() -> None:
    form = InputFormat("stretch", height=8, width=8, mean=(0, 0, 0), std=(1, 1, 1))
    pixels = noise(8, 8)
    expected = torch.from_numpy(pixels).permute(2, 0, 1) / 255
    torch.testing.assert_close(form.preprocess(Image.fromarray(pixels)), expected)


@pytest.mark.parametrize("antialias", [False, True])
def test_torchs_resampling_is_torchs(antialias: bool) -> None:
    pixels = torch.from_numpy(noise(40, 60)).permute(2, 0, 1)
    form = InputFormat("stretch", height=20, width=30, library="torch", antialias=antialias, whole=False)
    expected = torch.nn.functional.interpolate(pixels[None].float(), (20, 30), mode="bilinear", antialias=antialias)[0]
    torch.testing.assert_close(form.pixels(Image.fromarray(noise(40, 60))), expected)
    whole = InputFormat("stretch", height=20, width=30, library="torch", antialias=antialias)
    assert whole.pixels(Image.fromarray(noise(40, 60))).dtype == torch.uint8


def test_one_size_alone_cannot_be_changed() -> None:
    form = InputFormat("stretch", height=640, width=480)
    assert form.resized(None, None) == form
    with pytest.raises(ValueError, match=r"^this detector takes images of 640 x 480 pixels; leave out the short and"):
        form.resized(600, None)


def test_sides_are_rounded_down_to_whole_steps() -> None:
    form = InputFormat(short_side=96, long_side=144, step=16)
    assert form.content(90, 130) == (96, 128)
    assert form.content(130, 90) == (128, 96)
    assert form.content(20, 1000) == (16, 144)
