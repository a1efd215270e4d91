"""What image processors of transformers say they do to an image."""

from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from refinebox.adapters.layouts.preprocessing import Unsupported, input_format

from refinebox.data.input_format import MEAN, STD, InputFormat

FORM = InputFormat(short_side=640, long_side=1000, rounding="transformers")
NOISE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (120, 200, 3), dtype=np.uint8))


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"size": {"shortest_edge": 100, "longest_edge": 150}}, (90, 150)),
        ({"size": {"shortest_edge": 100}, "max_size": 150}, (90, 150)),
        ({"size": 60}, (60, 100)),
        ({"size": {"height": 64, "width": 80}}, (64, 80)),
        ({"size": {"max_height": 90, "max_width": 90}}, (54, 90)),
        ({"size": {"max_height": 30, "max_width": 900}}, (30, 50)),
    ],
)
def test_every_form_of_size_is_used(config: dict[str, Any], expected: tuple[int, int]) -> None:
    assert input_format(config, FORM).content(120, 200) == expected


def test_transformers_prepares_the_same_pixels() -> None:
    library = pytest.importorskip("transformers", reason="transformers says what its processors do")
    for config in (
        {"size": {"shortest_edge": 96, "longest_edge": 150}},
        {"size": {"height": 64, "width": 80}, "image_mean": [0.5] * 3, "image_std": [0.25] * 3},
        {"size": {"max_height": 96, "max_width": 96}, "do_normalize": False},
        {
            "size": {"height": 64, "width": 80},
            "rescale_factor": 1 / 127.5,
            "image_mean": [1.0] * 3,
            "image_std": [1.0] * 3,
        },
        {"size": {"height": 64, "width": 80}, "do_rescale": False, "do_normalize": False},
        {"size": {"height": 64, "width": 80}, "resample": 3},
    ):
        processor = library.DetrImageProcessor(**config, do_pad=False)
        expected = processor(NOISE, return_tensors="pt")["pixel_values"][0]
        form = input_format(config, FORM)
        found = form.normalise(form.pixels(NOISE))
        assert found.shape == expected.shape
        # the library resizes with torch, whose pixels differ from Pillow's by up to two grey values
        grey = 1 / (255 * min(form.std)) if form.std else 1
        torch.testing.assert_close(found, expected.float(), rtol=0, atol=2.1 * grey)


def test_nothing_said_changes_nothing() -> None:
    assert input_format({}, FORM) == FORM
    assert (input_format({}, FORM).mean, input_format({}, FORM).std) == (MEAN, STD)


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"image_mean": [0.5] * 3, "image_std": [0.5] * 3}, [1.0] * 3),
        ({"do_normalize": False}, [1.0] * 3),
        ({"do_normalize": False, "do_rescale": False}, [255.0] * 3),
        ({"image_mean": [0.0] * 3, "image_std": [1.0] * 3, "rescale_factor": 1 / 127.5}, [2.0] * 3),
    ],
)
def test_a_white_pixel_is_what_it_should_be(config: dict[str, Any], expected: list[float]) -> None:
    form = input_format(config, FORM)
    white = torch.full((3, 1, 1), 255, dtype=torch.uint8)
    torch.testing.assert_close(form.normalise(white).flatten(), torch.tensor(expected))


@pytest.mark.parametrize(
    "config",
    [
        {"do_resize": False},
        {"resample": 1},
        {"size": {"longest_edge": 640}},
        {"size": {"height": 640}},
        {"size": {"shortest_edge": 640, "width": 3}},
        {"image_mean": [0.5]},
        {"image_std": [0.0, 1.0, 1.0]},
        {"do_center_crop": True},
        {"crop_size": {"height": 1}, "do_center_crop": True},
        {"do_flip_channel_order": True},
        {"size_divisor": 32},
        {"something_new": 5},
    ],
    ids=str,
)
def test_what_cannot_be_done_is_refused_by_name(config: dict[str, Any]) -> None:
    with pytest.raises(Unsupported, match=r"in preprocessor_config\.json is not supported: ") as caught:
        input_format(config, FORM, config)
    assert any(key in str(caught.value) or key == "image_std" for key in config)


@pytest.mark.parametrize(
    "config", [{"do_center_crop": False, "crop_size": {"height": 1}}, {"do_pad": True, "pad_size": {"height": 5}}]
)
def test_what_changes_no_pixel_is_passed_over(config: dict[str, Any]) -> None:
    assert input_format(config, FORM, config) == FORM
