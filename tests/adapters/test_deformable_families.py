"""Every deformable family against the outputs of its authors' own code, in mmdetection's layouts."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import mmdet_files
import pytest
import torch
from torch import Tensor

from refinebox.data.batches import Target
from refinebox.data.categories import COCO_NAMES
from refinebox.data.input_format import pad
from refinebox.detection.detector import Detector
from refinebox.detection.output import DetectorOutput
from refinebox.detection.testing import check_detector
from refinebox.detection.zoo import describe, load_detector
from refinebox.files import checkpoint
from refinebox.refinement.matching import match
from refinebox.refinement.refined_detector import RefinedDetector
from refinebox.refinement.refiner import Refiner

FILES = ["deformable_detr", "deformable_detr_refine", "dino_4scale", "ddq_detr_4scale", "co_deformable_detr", "co_dino"]


@pytest.fixture(scope="module", params=FILES)
def recorded(request: pytest.FixtureRequest, mmdet_recording: Callable[[str], Any]) -> Any:
    return mmdet_recording(request.param)


@pytest.fixture(scope="module")
def path(recorded: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("weights") / "checkpoint.pth"
    return mmdet_files.write(file, recorded.state, recorded.content["config"]["num_queries"])


@pytest.fixture(scope="module")
def reference(recorded: Any, path: Path) -> Detector:
    return load_detector(recorded.name, path)


@pytest.fixture(scope="module")
def output(reference: Detector, recorded: Any) -> DetectorOutput:
    """For the padded batch of two images of different sizes."""
    found: DetectorOutput = reference(*pad(recorded.content["images"]))
    return found


def assert_equal(output: DetectorOutput, wanted: Mapping[str, Tensor]) -> None:
    kept = wanted.get("kept", torch.ones_like(output.boxes[..., 0], dtype=torch.bool))
    assert torch.equal(output.logits.amax(-1) > -torch.inf, kept)
    torch.testing.assert_close(output.logits[kept], wanted["pred_logits"][kept], atol=1e-3, rtol=0)
    torch.testing.assert_close(output.boxes, wanted["pred_boxes"], atol=5e-5, rtol=0)


def test_a_padded_batch_equals_the_authors(output: DetectorOutput, recorded: Any) -> None:
    assert_equal(output, recorded.content)


@pytest.mark.parametrize("index", [0, 1])
def test_single_images_equal_the_authors(index: int, reference: Detector, recorded: Any) -> None:
    assert_equal(reference(*pad([recorded.content["images"][index]])), recorded.content["single"][index])


def test_detections_equal_the_authors(reference: Detector, output: DetectorOutput, recorded: Any) -> None:
    found = reference.postprocess(reference.scores(output.logits), output.boxes, recorded.content["orig_sizes"])
    for detections, wanted in zip(found, recorded.content["results"], strict=True):
        torch.testing.assert_close(detections.scores, wanted["scores"], atol=2e-4, rtol=0)
        labels = wanted["labels"].apply_(tuple(COCO_NAMES).__getitem__)
        # scores that differ by rounding alone may trade places, so each is looked for among its neighbours
        for score, label, box in zip(wanted["scores"], labels, wanted["boxes"], strict=True):
            near = (detections.scores - score).abs() < 2e-4
            assert (near & (detections.labels == label) & ((detections.boxes - box).abs().amax(1) < 2e-2)).any()


def test_features_equal_the_authors(reference: Detector, output: DetectorOutput, recorded: Any) -> None:
    assert reference.strides == (4, 8, 16, 32)
    for feature, wanted in zip(output.features, recorded.content["feature_stats"].values(), strict=True):
        assert tuple(feature.shape) == tuple(wanted["shape"])
        assert feature.mean().item() == pytest.approx(float(wanted["mean"]), rel=1e-4)
        assert feature.std().item() == pytest.approx(float(wanted["std"]), rel=1e-4)


def test_the_columns_are_cocos_ids(reference: Detector) -> None:
    assert reference.category_ids == tuple(COCO_NAMES)
    assert reference.category_names == COCO_NAMES


def test_the_contract_is_kept(reference: Detector) -> None:
    check_detector(reference)


def test_the_best_queries_are_refined(reference: Detector, output: DetectorOutput, recorded: Any) -> None:
    torch.manual_seed(0)
    refiner = Refiner(reference.channels, reference.strides)
    sizes = pad(recorded.content["images"])[1]
    after = RefinedDetector(reference, refiner, top=30).refined(output, sizes)
    changed = (after.boxes != output.boxes).any(-1)  # [B, Q]
    assert changed.sum(1).tolist() == [30, 30]
    scores = reference.scores(output.logits).amax(-1)
    assert all(row[moved].min() >= row[~moved].max() for row, moved in zip(scores, changed, strict=True))


def test_objects_are_matched_with_queries_that_count(reference: Detector, output: DetectorOutput) -> None:
    boxes = torch.tensor([[0.3, 0.4, 0.2, 0.2], [0.7, 0.6, 0.5, 0.4]])
    target = Target(boxes, torch.tensor([0, 7]))
    scores = reference.scores(output.logits)
    matches = match(scores, output.boxes, [target, target], "sigmoid")
    assert matches.image.tolist() == [0, 0, 1, 1]
    assert (scores[matches.image, matches.query].amax(-1) > 0).all()


def test_what_is_written_is_read(reference: Detector, recorded: Any, tmp_path: Path) -> None:
    file = tmp_path / "again.safetensors"
    checkpoint.write(file, reference.tensors(), {"kind": "detector", "detector": describe(reference)})
    again = load_detector(str(file))
    assert again.weights_sha256() == reference.weights_sha256()
    assert_equal(again(*pad(recorded.content["images"])), recorded.content)


def test_a_truncated_file_says_so(recorded: Any, path: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.pth"
    broken.write_bytes(path.read_bytes()[:-20000])
    with pytest.raises(ValueError, match=r"broken\.pth is damaged, incomplete or no checkpoint"):
        load_detector(recorded.name, broken)


def test_an_incomplete_checkpoint_says_what_is_missing(recorded: Any, tmp_path: Path) -> None:
    state = {key: tensor for key, tensor in recorded.state.items() if "norms.2" not in key}
    first = [f"transformer.decoder.layers.{layer}.norm3.{part}" for layer in (0, 1) for part in ("weight", "bias")]
    with pytest.raises(ValueError, match=rf"^{recorded.name}: the checkpoint lacks {', '.join(first[:3])} and"):
        load_detector(recorded.name, mmdet_files.write(tmp_path / "weights.pth", state))


def test_an_unknown_tensor_is_named(recorded: Any, tmp_path: Path) -> None:
    head = "query_head" if "query_head.cls_branches.0.weight" in recorded.state else "bbox_head"
    state = recorded.state | {f"{head}.cls_branches.0.scale": torch.ones(1)}
    with pytest.raises(ValueError, match=r"the checkpoint holds unknown class_embed\.0\.scale; expected \d+ tensors$"):
        load_detector(recorded.name, mmdet_files.write(tmp_path / "weights.pth", state))
