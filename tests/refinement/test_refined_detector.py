"""A detector and its refiner in one, against the authors' recorded detections."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from recorded_refiners import PUBLISHED, reference
from torch import Tensor

from refinebox.boxes import to_pixels
from refinebox.detection.detector import Detector
from refinebox.detection.output import Detections, DetectorOutput
from refinebox.detection.profile import Profile
from refinebox.refinement.architecture import ARCHITECTURES, SPATIAL
from refinebox.refinement.move import clipped
from refinebox.refinement.quality import Quality
from refinebox.refinement.refined_detector import RefinedDetector
from refinebox.refinement.refiner import Refiner


class Recorded(Detector):
    """Gives what the reference's detector gave."""

    def __init__(self, recorded: dict[str, Any], features: list[Tensor]) -> None:
        softmax = recorded["meta"]["softmax_detector"]
        columns = recorded["pred_logits"].shape[-1] - softmax
        super().__init__(
            Profile(
                "recorded",
                "none",
                "softmax" if softmax else "sigmoid",
                category_ids=tuple(range(columns)),
                layout="detrex",
            )
        )
        self.output = DetectorOutput(tuple(features), recorded["pred_boxes"], recorded["pred_logits"])
        self.channels = tuple(feature.shape[1] for feature in features)
        self.strides = (4, 8, 16, 32)

    def detect(self, images: Tensor, sizes: Tensor) -> DetectorOutput:
        return self.output


@pytest.mark.parametrize("name", PUBLISHED)
def test_detections_equal_the_authors(shared: Path, name: str) -> None:
    """From features to what is found in the original image: choice of queries, clipping and what is dropped."""
    recorded, features, refiner = reference(shared, name)
    wanted = recorded["eval"]
    model = RefinedDetector(Recorded(recorded, features), refiner, top=wanted["topk"])
    after = model(torch.zeros(2, 3, *recorded["padded_size"]), torch.tensor(recorded["image_sizes"]))
    found = model.postprocess(model.scores(after.logits), after.boxes, torch.tensor(wanted["orig_sizes"]))
    assert len(found) == len(wanted["instances"]) == 2
    for detections, instances in zip(found, wanted["instances"], strict=True):
        assert detections.labels.tolist() == instances["pred_classes"].tolist()
        torch.testing.assert_close(detections.scores, instances["scores"], atol=1e-6, rtol=0)
        # 1e-5 of the image's longer side, in pixels
        atol = 1e-5 * max(instances["image_size"])
        torch.testing.assert_close(detections.boxes, instances["pred_boxes"], atol=atol, rtol=0)


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_refined_queries_are_the_authors(shared: Path, name: str) -> None:
    recorded, features, refiner = reference(shared, name)
    wanted = recorded["eval"]
    before, after = RefinedDetector(Recorded(recorded, features), refiner).before_and_after(
        torch.zeros(2, 3, *recorded["padded_size"]), torch.tensor(recorded["image_sizes"])
    )
    assert torch.equal(before.logits, after.logits)
    for image in range(2):
        moved = (before.boxes[image] != after.boxes[image]).any(-1).nonzero()[:, 0]
        assert set(moved.tolist()) <= set(wanted["topk_ids"][image].tolist())
        assert len(moved) > 90  # some corner cases stay where they are


def test_scores_and_other_queries_stay(detector: Detector) -> None:
    torch.manual_seed(0)
    model = RefinedDetector(detector, Refiner(detector.channels, detector.strides), top=5)
    before, after = model.before_and_after(torch.randn(2, 3, 64, 96), torch.tensor([[64, 96], [50, 64]]))
    assert torch.equal(before.logits, after.logits)
    moved = (before.boxes != after.boxes).any(-1)
    best = before.logits.sigmoid().amax(-1).topk(5).indices
    assert moved.sum() == 10
    assert moved.gather(1, best).all()


def test_a_refined_detector_is_a_detector(detector: Detector) -> None:
    model = RefinedDetector(detector, Refiner(detector.channels, detector.strides))
    images, sizes = torch.randn(1, 3, 64, 64), torch.tensor([[64, 64]])
    assert torch.equal(model(images, sizes).boxes, model.before_and_after(images, sizes)[1].boxes)
    assert (model.category_ids, model.strides, model.channels) == (
        detector.category_ids,
        detector.strides,
        detector.channels,
    )
    assert not model.train().training


def test_no_object_is_never_a_score(make_detector: Callable[..., Detector]) -> None:
    """The published top-k looks at every column; with more queries than refined boxes it picks sure background."""
    detector = make_detector()
    detector.profile = replace(detector.profile, classification="softmax", category_ids=())
    model = RefinedDetector(detector, Refiner(detector.channels, detector.strides), top=4)
    images, sizes = torch.randn(1, 3, 64, 64), torch.tensor([[64, 64]])
    output = detector(images, sizes)
    logits = torch.zeros(1, 12, 6)
    logits[0, :8, 5] = torch.arange(9.0, 17.0)  # surely background, all of them above every object's logit
    logits[0, 8:, 2] = torch.tensor([8.0, 3.0, 5.0, 4.0])
    refined = model.refined(DetectorOutput(output.features, output.boxes, logits), sizes)
    moved = (refined.boxes != output.boxes).any(-1)[0]
    assert moved.tolist() == [False] * 8 + [True] * 4
    assert detector.scores(logits).shape[-1] == 5


class Halved(Recorded):
    """Overrides what docs/adapters.md says can be overridden."""

    def scores(self, logits: Tensor) -> Tensor:
        return logits.sigmoid() / 2

    def select(self, scores: Tensor, boxes: Tensor, sizes: Tensor) -> list[Detections]:
        return [Detections(row, score[:, 0], score[:, 0].long()) for row, score in zip(boxes, scores, strict=True)]


def test_scores_and_choice_are_those_of_the_refined_detector() -> None:
    recorded = {
        "meta": {"softmax_detector": False},
        "pred_boxes": torch.rand(1, 3, 4),
        "pred_logits": torch.randn(1, 3, 2),
    }
    detector = Halved(recorded, [torch.zeros(1, 8, 1, 1)] * 4)
    model = RefinedDetector(detector, Refiner((8, 8, 8, 8)))
    logits, sizes = recorded["pred_logits"], torch.tensor([[64, 64]])
    assert torch.equal(model.scores(logits), detector.scores(logits))
    found = model.select(model.scores(logits), recorded["pred_boxes"], sizes)
    assert torch.equal(found[0].boxes, recorded["pred_boxes"][0])


def test_wrong_channels_are_refused(detector: Detector) -> None:
    with pytest.raises(ValueError, match=r"reads 8/8/8/8 channels at strides 4/8/16/32, but tiny gives 16/16/24/32"):
        RefinedDetector(detector, Refiner((8, 8, 8, 8)))


def test_boxes_of_relative_moves_are_cut_at_the_borders(detector: Detector) -> None:
    images, sizes = torch.randn(1, 3, 64, 64), torch.tensor([[64, 64]])
    for architecture in ARCHITECTURES.values():
        model = RefinedDetector(detector, Refiner(detector.channels, detector.strides, architecture=architecture), 5)
        before, after = model.before_and_after(images, sizes)
        corners = to_pixels(after.boxes, sizes) / 64
        assert (to_pixels(before.boxes, sizes) < 0).any()
        assert ((corners >= -1e-6) & (corners <= 1 + 1e-6)).all() == (architecture == SPATIAL)


def test_a_refiner_that_moves_nothing_leaves_boxes_but_for_the_borders(detector: Detector) -> None:
    images, sizes = torch.randn(1, 3, 64, 64), torch.tensor([[64, 64]])
    model = RefinedDetector(detector, Refiner(detector.channels, detector.strides, architecture=SPATIAL))
    before, after = model.before_and_after(images, sizes)
    torch.testing.assert_close(after.boxes, clipped(before.boxes))


def test_a_quality_head_changes_scores_of_refined_boxes_alone(detector: Detector) -> None:
    images, sizes = torch.randn(2, 3, 64, 64), torch.tensor([[64, 64], [64, 48]])
    model = RefinedDetector(detector, Refiner(detector.channels, detector.strides, architecture=SPATIAL), 5)
    plain = model(images, sizes)
    model.refiner.quality = Quality(3, len(detector.category_ids)).eval()
    rescored = model(images, sizes)
    old, new = model.scores_of(plain), model.scores_of(rescored)
    assert torch.equal(rescored.boxes, plain.boxes)
    assert ((new > 0) & (new <= 1)).all()
    best = old.amax(-1).topk(5).indices
    others = torch.ones(old.shape[:2], dtype=torch.bool).scatter(1, best, False)
    torch.testing.assert_close(new[others], 1e-3 * old[others])
    assert (new[~others] > 1e-2).all()
    found = model.postprocess(new, rescored.boxes, sizes)
    assert torch.equal(found[0].scores, new[0].flatten().sort(descending=True).values[: len(found[0].scores)])
