"""Every family against the outputs of its authors' own code."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from refinebox.data.categories import COCO_NAMES
from refinebox.data.input_format import pad
from refinebox.detection.detector import Detector
from refinebox.detection.output import DetectorOutput
from refinebox.detection.zoo import load_detector

FAMILIES = ["detr", "conditional_detr", "dab_detr", "dn_detr"]


@pytest.fixture(scope="module", params=FAMILIES)
def recorded(request: pytest.FixtureRequest, recording: Callable[[str], Any]) -> Any:
    return recording(request.param)


@pytest.fixture(scope="module")
def reference(recorded: Any, tmp_path_factory: pytest.TempPathFactory) -> Detector:
    path = tmp_path_factory.mktemp("weights") / "checkpoint.pth"
    torch.save({"model": recorded.state}, path)
    return load_detector(recorded.name, path)


@pytest.fixture(scope="module")
def output(reference: Detector, recorded: Any) -> DetectorOutput:
    """For the padded batch of two images of different sizes."""
    found: DetectorOutput = reference(*pad(recorded.content["images"]))
    return found


def assert_equal(output: DetectorOutput, wanted: Mapping[str, Tensor]) -> None:
    torch.testing.assert_close(output.logits, wanted["pred_logits"], atol=5e-4, rtol=0)
    torch.testing.assert_close(output.boxes, wanted["pred_boxes"], atol=3e-5, rtol=0)


def test_a_padded_batch_equals_the_authors(output: DetectorOutput, recorded: Any) -> None:
    assert_equal(output, recorded.content)


@pytest.mark.parametrize("index", [0, 1])
def test_single_images_equal_the_authors(index: int, reference: Detector, recorded: Any) -> None:
    assert_equal(reference(*pad([recorded.content["images"][index]])), recorded.content["single"][index])


def test_detections_equal_the_authors(reference: Detector, output: DetectorOutput, recorded: Any) -> None:
    found = reference.postprocess(reference.scores(output.logits), output.boxes, recorded.content["orig_sizes"])
    for detections, wanted in zip(found, recorded.content["results"], strict=True):
        torch.testing.assert_close(detections.scores, wanted["scores"], atol=1e-4, rtol=0)
        # scores that differ by rounding alone may trade places, so each is looked for among its neighbours
        for score, label, box in zip(wanted["scores"], wanted["labels"], wanted["boxes"], strict=True):
            near = (detections.scores - score).abs() < 1e-4
            same = near & (detections.labels == label) & ((detections.boxes - box).abs().amax(1) < 0.05)
            assert same.any()


def test_features_equal_the_authors(reference: Detector, output: DetectorOutput, recorded: Any) -> None:
    assert reference.strides == (4, 8, 16, 32)
    assert reference.channels == tuple(feature.shape[1] for feature in output.features) == (256, 512, 1024, 2048)
    for feature, wanted in zip(output.features, recorded.content["feature_stats"].values(), strict=True):
        assert tuple(feature.shape) == tuple(wanted["shape"])
        assert feature.mean().item() == pytest.approx(float(wanted["mean"]), rel=1e-4)
        assert feature.std().item() == pytest.approx(float(wanted["std"]), rel=1e-4)


def test_the_columns_are_cocos_ids(reference: Detector) -> None:
    assert reference.category_ids == tuple(range(91))
    assert reference.category_names == COCO_NAMES
    assert reference.profile.layout == "authors"


def test_the_tensors_build_the_same_network(reference: Detector, recorded: Any, tmp_path: Path) -> None:
    torch.save(reference.tensors(), tmp_path / "again.pth")
    again = load_detector(recorded.name, tmp_path / "again.pth")
    assert again.weights_sha256() == reference.weights_sha256()


def without(part: str, state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {key: tensor for key, tensor in state.items() if part not in key}


def test_an_incomplete_checkpoint_says_what_is_missing(recorded: Any, tmp_path: Path) -> None:
    torch.save(without("class_embed.weight", recorded.state), tmp_path / "weights.pth")
    expected = rf"^{recorded.name}: the checkpoint has no tensor 'class_embed\.weight'; is it complete\?$"
    with pytest.raises(ValueError, match=expected):
        load_detector(recorded.name, tmp_path / "weights.pth")
    torch.save(without("norm3", recorded.state), tmp_path / "weights.pth")
    first = [f"transformer.decoder.layers.{layer}.norm3.{part}" for layer in (0, 1) for part in ("weight", "bias")]
    with pytest.raises(
        ValueError, match=rf"the checkpoint lacks {', '.join(first[:3])} and 3 more; expected \d+ tensors$"
    ):
        load_detector(recorded.name, tmp_path / "weights.pth")
