"""Detectors that see images on a grey square."""

from typing import Any

import pytest
import torch
from refinebox.adapters.layouts.recognise import to_authors
from refinebox.adapters.parts.square import limits
from torch.nn import functional as F

from refinebox.data.input_format import InputFormat, pad
from refinebox.detection.detector import Detector
from refinebox.detection.profile import Profile
from refinebox.detection.published import DETECTORS
from refinebox.detection.testing import check_detector

SIDE = 256


@pytest.fixture(scope="module")
def build(mmdet_recording: Any) -> Any:
    from refinebox.adapters.co_detr import build

    recorded = mmdet_recording("co_deformable_detr")
    state, layout = to_authors(recorded.state)
    return lambda **settings: build(state, Profile("mine", "co_detr", layout=layout, settings=settings))


@pytest.fixture(scope="module")
def on_square(build: Any) -> Detector:
    detector: Detector = build(square=SIDE)
    return detector


def test_padding_is_grey_image_and_boxes_are_fractions_of_the_square(on_square: Detector, build: Any) -> None:
    pixels = torch.randint(0, 256, (3, 180, 230), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    grey = F.pad(pixels.float(), (0, SIDE - 230, 0, SIDE - 180), value=114.0).to(torch.uint8)
    wanted = build()(*pad([InputFormat().normalise(grey)]))
    images, sizes = pad([InputFormat().normalise(pixels), torch.zeros(3, 200, 100)])
    found = on_square(images, sizes)
    torch.testing.assert_close(found.logits[:1], wanted.logits, atol=1e-3, rtol=0)
    factor = torch.tensor([SIDE / 230, SIDE / 180] * 2)
    torch.testing.assert_close(found.boxes[:1], wanted.boxes * factor, atol=1e-4, rtol=0)
    for feature, whole, stride in zip(found.features, wanted.features, on_square.strides, strict=True):
        height, width = feature.shape[-2:]
        assert (height, width) == (-(-images.shape[-2] // stride), -(-images.shape[-1] // stride))
        torch.testing.assert_close(feature[:1], whole[..., :height, :width], atol=1e-3, rtol=1e-3)


def test_the_contract_is_kept(on_square: Detector) -> None:
    assert on_square.get_submodule("network").square == SIDE
    assert on_square.strides == (4, 8, 16, 32)
    check_detector(on_square)


def test_detections_end_where_the_square_does(on_square: Detector) -> None:
    boxes = torch.tensor([[[0.5, 0.5, 4.0, 4.0], [0.5, 0.5, 0.5, 0.5]]])
    scores = torch.zeros(1, 2, 80)
    scores[0, 0, 0], scores[0, 1, 0] = 0.9, 0.8
    (found,) = on_square.postprocess(scores, boxes, torch.tensor([[300, 400]]))
    torch.testing.assert_close(found.boxes[0], torch.tensor([0.0, 0.0, 400.0, 400.0]))
    torch.testing.assert_close(found.boxes[1], torch.tensor([100.0, 75.0, 300.0, 225.0]))


def test_the_end_of_the_square_counts_the_rounding_of_the_resized_side() -> None:
    height, width = limits((301, 400), 256)  # which is resized to 193 x 256
    assert (height, width) == (256 * 301 / 193, 400)


def test_the_names_say_the_square() -> None:
    assert DETECTORS["co-dino-r50-lsj"].settings["square"] == 1024
    assert "square" not in DETECTORS["co-dino-r50"].settings
