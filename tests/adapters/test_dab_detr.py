"""DAB-DETR against the outputs of the authors' own code."""

import importlib.util
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from refinebox.detector import Detector
from refinebox.images import pad
from refinebox.zoo import load_detector


@pytest.fixture(scope="module")
def recorded(shared: Path) -> dict[str, Any]:
    content: dict[str, Any] = torch.load(shared / "fixtures/detectors/dab_detr.pt", weights_only=True)
    return content


@pytest.fixture(scope="module")
def state(shared: Path, recorded: dict[str, Any]) -> dict[str, Tensor]:
    """The weights that the reference ran with, rebuilt from their seed."""
    spec = importlib.util.spec_from_file_location("synth", shared / "fixtures/detectors/synth.py")
    assert spec is not None
    assert spec.loader is not None
    synth = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(synth)
    tensors: dict[str, Tensor] = synth.synth_state_dict(recorded["shapes"], recorded["seed"])
    return {**tensors, **recorded["overrides"]}


@pytest.fixture(scope="module")
def reference(state: dict[str, Tensor], tmp_path_factory: pytest.TempPathFactory) -> Detector:
    path = tmp_path_factory.mktemp("weights") / "dab_detr.pth"
    torch.save({"model": state}, path)
    return load_detector("dab-detr-r50", path)


def test_padded_batch_equals_the_authors(reference: Detector, recorded: dict[str, Any]) -> None:
    output = reference(*pad(recorded["images"]))
    torch.testing.assert_close(output.logits, recorded["pred_logits"], atol=5e-4, rtol=0)
    torch.testing.assert_close(output.boxes, recorded["pred_boxes"], atol=3e-5, rtol=0)


@pytest.mark.parametrize("index", [0, 1])
def test_single_images_equal_the_authors(reference: Detector, recorded: dict[str, Any], index: int) -> None:
    output = reference(*pad([recorded["images"][index]]))
    torch.testing.assert_close(output.logits, recorded["single"][index]["pred_logits"], atol=5e-4, rtol=0)
    torch.testing.assert_close(output.boxes, recorded["single"][index]["pred_boxes"], atol=3e-5, rtol=0)


def test_detections_equal_the_authors(reference: Detector, recorded: dict[str, Any]) -> None:
    output = reference(*pad(recorded["images"]))
    found = reference.postprocess(reference.scores(output.logits), output.boxes, recorded["orig_sizes"])
    for detections, wanted in zip(found, recorded["results"], strict=True):
        torch.testing.assert_close(detections.scores, wanted["scores"], atol=1e-5, rtol=0)
        # scores that differ by rounding alone may trade places, so each is looked for among its neighbours
        for score, label, box in zip(wanted["scores"], wanted["labels"], wanted["boxes"], strict=True):
            near = (detections.scores - score).abs() < 1e-5
            same = near & (detections.labels == label) & ((detections.boxes - box).abs().amax(1) < 0.05)
            assert same.any()


def test_features_equal_the_authors(reference: Detector, recorded: dict[str, Any]) -> None:
    features = reference(*pad(recorded["images"])).features
    assert reference.strides == (4, 8, 16, 32)
    assert reference.channels == tuple(feature.shape[1] for feature in features) == (256, 512, 1024, 2048)
    statistics = recorded["feature_stats"]
    for feature, wanted in zip(
        features, statistics.values() if isinstance(statistics, dict) else statistics, strict=True
    ):
        assert tuple(feature.shape) == tuple(wanted["shape"])
        assert feature.mean().item() == pytest.approx(float(wanted["mean"]), rel=1e-4)
        assert feature.std().item() == pytest.approx(float(wanted["std"]), rel=1e-4)


def test_coco_names_come_with_91_columns(reference: Detector) -> None:
    assert reference.category_ids == tuple(range(91))
    assert len(reference.category_names) == 80
    assert reference.category_names[90] == "toothbrush"


def test_temperature_and_dilation_come_from_the_name(state: dict[str, Tensor], tmp_path: Path) -> None:
    torch.save(state, tmp_path / "weights.pth")
    dilated = load_detector("dab-detr-r50-dc5", tmp_path / "weights.pth")
    assert dilated.strides == (4, 8, 16, 16)
    assert dilated.profile.settings == {"dilation": True, "temperature": 10.0}


def test_patterns_multiply_the_queries(state: dict[str, Tensor], tmp_path: Path) -> None:
    torch.manual_seed(0)
    torch.save({**state, "transformer.patterns.weight": torch.randn(3, 256)}, tmp_path / "weights.pth")
    detector = load_detector("dab-detr-r50-3pat", tmp_path / "weights.pth")
    output = detector(torch.zeros(1, 3, 64, 64), torch.tensor([[64, 64]]))
    assert output.boxes.shape == (1, 3 * len(state["refpoint_embed.weight"]), 4)


def test_an_incomplete_checkpoint_says_what_is_missing(state: dict[str, Tensor], tmp_path: Path) -> None:
    torch.save({k: v for k, v in state.items() if k != "class_embed.weight"}, tmp_path / "weights.pth")
    with pytest.raises(
        ValueError, match=r"dab-detr-r50: the checkpoint has no tensor 'class_embed.weight'; is it complete"
    ):
        load_detector("dab-detr-r50", tmp_path / "weights.pth")
    torch.save({k: v for k, v in state.items() if "norm3" not in k}, tmp_path / "weights.pth")
    with pytest.raises(ValueError, match=r"the checkpoint lacks .*norm3.* and 3 more; expected \d+ tensors"):
        load_detector("dab-detr-r50", tmp_path / "weights.pth")
