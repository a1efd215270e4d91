"""The contract test passes for a detector that keeps the contract, and says what is wrong with one that does not."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from PIL import Image
from torch import Tensor

from refinebox.data.input_format import InputFormat
from refinebox.data.proposals import Proposals
from refinebox.detection.choice import Choice
from refinebox.detection.detector import Detector
from refinebox.detection.output import DetectorOutput
from refinebox.detection.profile import Profile
from refinebox.detection.testing import check_detector
from refinebox.detection.zoo import load_detector
from refinebox.refinement.refined_detector import RefinedDetector
from refinebox.refinement.refiner import Refiner


class Simple(Detector):
    """One box for each quarter of the image, which moves a little with what is in it."""

    def __init__(
        self,
        change: Callable[["Simple", DetectorOutput], DetectorOutput] | None = None,
        stride: int = 4,
        form: InputFormat | None = None,
        choice: Choice | None = None,
    ) -> None:
        form = form or InputFormat(multiple=stride)
        super().__init__(Profile("simple", "none", category_ids=(1, 2, 3), input=form, choice=choice))
        self.stride = stride
        self.convolution = torch.nn.Conv2d(3, 8, stride, stride=stride)
        self.register_buffer("calls", torch.zeros(1))
        self.change = None
        self.freeze()
        self.change = change

    def detect(self, images: Tensor, sizes: Tensor) -> DetectorOutput:
        features = self.convolution(images)  # [B, 8, H / stride, W / stride]
        height, width = (sizes // self.stride).unbind(-1)
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


FIXED = {
    "stretched": InputFormat("stretch", height=96, width=128, multiple=4),
    "letterboxed": InputFormat("letterbox", height=96, width=128, multiple=4, mean=(0.0,) * 3, std=(1 / 255,) * 3),
    "in steps": InputFormat(short_side=96, long_side=160, step=16),
    "torch's": InputFormat(short_side=96, long_side=160, library="torch", antialias=False, whole=False, multiple=32),
}


@pytest.mark.parametrize("form", FIXED.values(), ids=FIXED)
def test_any_input_format_passes(form: InputFormat) -> None:
    check_detector(Simple(form=form))


def refined(detector: Detector) -> RefinedDetector:
    """With a refiner that is not trained any more."""
    torch.manual_seed(0)
    return RefinedDetector(detector, Refiner(detector.channels, detector.strides).requires_grad_(False))


@pytest.mark.parametrize("stride", [8, 14, 16])
def test_one_level_of_any_stride_passes_refined_or_not(stride: int) -> None:
    detector = Simple(stride=stride)
    assert detector.strides == (stride,)
    check_detector(detector)
    check_detector(refined(detector))


def with_an_unused_row(_: Simple, output: DetectorOutput) -> DetectorOutput:
    logits = output.logits.clone()
    logits[:, -1] = -torch.inf
    return replace(output, logits=logits)


SUPPRESSION = Choice("suppression", limit=3, above=0.0, iou=0.5)


@pytest.mark.parametrize("choice", [SUPPRESSION, Choice(limit=9)])
def test_rows_that_are_not_used_pass(choice: Choice) -> None:
    check_detector(Simple(with_an_unused_row, choice=choice))


def test_an_unused_row_is_no_detection() -> None:
    with pytest.raises(AssertionError, match=r"^a row that is not used, with scores of 0, became a detection$"):
        check_detector(Simple(with_an_unused_row, choice=Choice(limit=12)))


def test_suppression_looks_at_the_moved_boxes() -> None:
    class Early(Simple):
        """Suppresses where the boxes were, or not at all."""

        def select(self, scores: Tensor, boxes: Tensor, sizes: Tensor) -> list:  # type: ignore[type-arg]
            profile, self.profile = self.profile, replace(self.profile, choice=Choice(limit=9))
            try:
                return super().select(scores, boxes, sizes)
            finally:
                self.profile = profile

    with pytest.raises(AssertionError, match=r"^boxes that were moved onto one another stay twice in a category"):
        check_detector(Early(choice=SUPPRESSION))


def test_detections_say_their_queries() -> None:
    class Silent(Simple):
        def select(self, scores: Tensor, boxes: Tensor, sizes: Tensor) -> list:  # type: ignore[type-arg]
            return [replace(found, queries=None) for found in super().select(scores, boxes, sizes)]

    with pytest.raises(AssertionError, match=r"^detections do not say their queries; select\(\) must fill the field$"):
        check_detector(Silent())


def test_pictures_come_in_as_announced() -> None:
    class Own(Simple):
        def preprocess(self, image: Image.Image) -> Tensor:
            return super().preprocess(image)[..., :-1]

    with pytest.raises(AssertionError, match=r"^preprocess\(\) makes torch\.float32 \(3, 800, 1199\) of a picture, e"):
        check_detector(Own())


class Taking(Simple):
    """Takes boxes and scores, and keeps them."""

    def detect_given(self, images: Tensor, sizes: Tensor, proposals: Proposals) -> DetectorOutput:
        output = DetectorOutput((self.convolution(images),), proposals.boxes, proposals.scores.logit())
        return self.change(self, output) if self.change else output


def test_a_detector_that_takes_proposals_passes() -> None:
    check_detector(Taking(choice=SUPPRESSION))
    check_detector(refined(Taking(choice=SUPPRESSION)))


def test_proposals_keep_their_scores() -> None:
    with pytest.raises(AssertionError, match=r"^scores are not those that the detector was given; expected the same"):
        check_detector(Taking(lambda _, out: replace(out, logits=out.logits.flip(1)), choice=SUPPRESSION))
