"""The contract test passes for a detector that keeps the contract, and says what is wrong with one that does not."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from refinebox.detection.detector import Detector
from refinebox.detection.output import DetectorOutput
from refinebox.detection.profile import Profile
from refinebox.detection.testing import check_detector
from refinebox.detection.zoo import load_detector


class Simple(Detector):
    """One box for each quarter of the image, which moves a little with what is in it."""

    def __init__(self, change: Callable[["Simple", DetectorOutput], DetectorOutput] | None = None) -> None:
        super().__init__(Profile("simple", "none", category_ids=(1, 2, 3)))
        self.convolution = torch.nn.Conv2d(3, 8, 4, stride=4)
        self.register_buffer("calls", torch.zeros(1))
        self.change = None
        self.freeze()
        self.change = change

    def detect(self, images: Tensor, sizes: Tensor) -> DetectorOutput:
        features = self.convolution(images)  # [B, 8, H / 4, W / 4]
        height, width = (sizes // 4).unbind(-1)
        quarters = [
            feature[:, : h // 2 * 2, : w // 2 * 2].unflatten(2, (2, -1)).unflatten(1, (2, -1)).mean((2, 4)).flatten(1)
            for feature, h, w in zip(features, height, width, strict=True)
        ]
        content = torch.stack(quarters).transpose(1, 2)  # [B, 4, 8]
        centres = torch.tensor([[0.25, 0.25], [0.75, 0.25], [0.25, 0.75], [0.75, 0.75]]).expand(len(images), -1, -1)
        boxes = torch.cat([centres + 0.01 * content[..., :2], 0.5 + 0.01 * content[..., 2:4]], dim=-1)
        output = DetectorOutput((features,), boxes, content[..., 4:7])
        return self.change(self, output) if self.change else output


def in_padded_frame(_: Simple, output: DetectorOutput) -> DetectorOutput:
    sizes = [(192, 256), (134, 154)]
    if len(output.boxes) == 1:
        return output
    scale = torch.tensor([[w / 256, h / 192, w / 256, h / 192] for h, w in sizes])[:, None]
    return replace(output, boxes=output.boxes * scale)


def counted(detector: Simple, output: DetectorOutput) -> DetectorOutput:
    detector.get_buffer("calls").add_(1)
    return output


def trainable(detector: Simple, output: DetectorOutput) -> DetectorOutput:
    with torch.enable_grad():
        return replace(output, boxes=output.boxes * torch.ones(1, requires_grad=True))


BROKEN: dict[str, tuple[Callable[[Simple, DetectorOutput], DetectorOutput], str]] = {
    "padded frame": (in_padded_frame, r"boxes move by 0\.\d+ .* when the image is padded"),
    "pixels": (
        lambda _, out: replace(out, boxes=200 * out.boxes),
        r"boxes lie between .*, expected cxcywh as fraction",
    ),
    "random": (
        lambda _, out: replace(out, logits=torch.randn_like(out.logits)),
        r"a second run on the same batch gave",
    ),
    "columns": (
        lambda _, out: replace(out, logits=out.logits[..., :2]),
        r"logits are \(2, 4, 2\), expected \(2, 4, 3\): one column for each of the 3 category ids$",
    ),
    "box shape": (
        lambda _, out: replace(out, boxes=out.boxes[..., :3]),
        r"boxes are \(2, 4, 3\), expected \[2, Q, 4\]",
    ),
    "channels": (
        lambda _, out: replace(out, features=(out.features[0][:, :5],)),
        r"features have \(5,\) channels, announced are \(8,\)",
    ),
    "cells": (
        lambda _, out: replace(out, features=(out.features[0][..., ::2],)),
        r"the map of stride 4 has \(48, 32\) cells, expected about \(48, 64\)",
    ),
    "type": (
        lambda _, out: replace(out, logits=out.logits.double()),
        r"logits are torch\.float64, expected torch\.flo",
    ),
    "infinite": (lambda _, out: replace(out, logits=out.logits / 0), r"the output is not finite everywhere"),
    "buffers": (counted, r"a forward pass changed \['calls'\]; expected none"),
    "gradients": (trainable, r"the output carries gradients; override detect\(\), not forward\(\)"),
}


def test_a_sound_detector_passes() -> None:
    check_detector(Simple())


def test_the_bundled_detector_passes() -> None:
    check_detector(load_detector("dab-detr-shapes"), height=160, width=192)


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_wrong_is_said(name: str) -> None:
    change, message = BROKEN[name]
    with pytest.raises(AssertionError, match=message):
        check_detector(Simple(change))


def test_trainable_parameters_are_found() -> None:
    detector = Simple()
    detector.convolution.weight.requires_grad_(True)
    with pytest.raises(AssertionError, match=r"^1 parameters can be trained \(\['convolution.weight'\]\); call freeze"):
        check_detector(detector)


def test_training_mode_is_found() -> None:
    class Restless(Simple):
        def train(self, mode: bool = True) -> "Restless":
            torch.nn.Module.train(self, mode)
            return self

    with pytest.raises(AssertionError, match=r"train\(\) switched \['itself', 'convolution'\] to training mode"):
        check_detector(Restless())


def test_scores_are_probabilities() -> None:
    class Raw(Simple):
        def scores(self, logits: Tensor) -> Tensor:
            return logits

    with pytest.raises(AssertionError, match=r"scores leave 0 to 1; scores\(\) must return probabilities"):
        check_detector(Raw())


def test_scores_leave_out_no_object() -> None:
    class Whole(Simple):
        def scores(self, logits: Tensor) -> Tensor:
            return torch.cat([logits, logits[..., :1]], -1).sigmoid()

    detector = Simple()
    detector.__class__ = Whole
    with pytest.raises(AssertionError, match=r"scores are \(2, 4, 4\), expected \(2, 4, 3\): no-object left out"):
        check_detector(detector)


def test_detections_are_in_pixels_of_the_original() -> None:
    class Fixed(Simple):
        def select(self, scores: Tensor, boxes: Tensor, sizes: Tensor) -> list:  # type: ignore[type-arg]
            return super().select(scores, boxes, torch.full_like(sizes, 100))

    with pytest.raises(AssertionError, match=r"boxes do not double with the size of the original image"):
        check_detector(Fixed())


def test_labels_are_category_ids() -> None:
    class Columns(Simple):
        def select(self, scores: Tensor, boxes: Tensor, sizes: Tensor) -> list:  # type: ignore[type-arg]
            return [replace(found, labels=found.labels + 7) for found in super().select(scores, boxes, sizes)]

    with pytest.raises(AssertionError, match=r"labels \[8, 9, 10\] are no category ids, known are \(1, 2, 3\)"):
        check_detector(Columns())


def test_features_alone_must_be_those_of_the_output(monkeypatch: pytest.MonkeyPatch) -> None:
    detector = Simple()
    monkeypatch.setattr(detector, "extract", lambda images, sizes: (2 * detector.convolution(images),))
    with pytest.raises(AssertionError, match=r"^features\(\) gives other maps than the detector's output has; extract"):
        check_detector(detector)
