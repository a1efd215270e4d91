"""Every native family against the outputs of its authors' own code: the contract's tests, and the authors' numbers."""

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import tiny_families
import torch
from adapter_contract import AdapterContract
from torch import Tensor

from refinebox.data.batches import Target
from refinebox.data.categories import COCO_NAMES
from refinebox.data.input_format import pad
from refinebox.detection.detector import Detector
from refinebox.detection.output import DetectorOutput
from refinebox.detection.testing import check_detector
from refinebox.detection.zoo import load_detector
from refinebox.refinement.matching import match
from refinebox.refinement.refined_detector import RefinedDetector
from refinebox.refinement.refiner import Refiner

PLAIN = ("detr", "conditional_detr", "dab_detr", "dn_detr")
DEFORMABLE = (
    *("deformable_detr", "deformable_detr_refine", "dino_4scale", "ddq_detr_4scale", "co_deformable_detr", "co_dino"),
)


@pytest.fixture(scope="module", params=[*(f"{name}, authors" for name in PLAIN), *DEFORMABLE])
def recorded(
    request: pytest.FixtureRequest, recording: Callable[[str], Any], mmdet_recording: Callable[[str], Any]
) -> Any:
    family, _, authors = request.param.partition(", ")
    return recording(family) if authors else mmdet_recording(family)


@pytest.fixture(scope="module")
def path(recorded: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    file: Path = recorded.write(tmp_path_factory.mktemp("weights") / "checkpoint.pth")
    return file


@pytest.fixture(scope="module")
def detector(recorded: Any, path: Path) -> Detector:
    return load_detector(recorded.name, path)


@pytest.fixture(scope="module")
def output(detector: Detector, recorded: Any) -> DetectorOutput:
    """For the padded batch of two images of different sizes."""
    found: DetectorOutput = detector(*pad(recorded.content["images"]))
    return found


def assert_equal(output: DetectorOutput, wanted: Mapping[str, Tensor], deformable: bool) -> None:
    kept = wanted.get("kept", torch.ones_like(output.boxes[..., 0], dtype=torch.bool))
    assert torch.equal(output.logits.amax(-1) > -torch.inf, kept)
    logits, boxes = (1e-3, 5e-5) if deformable else (5e-4, 3e-5)
    torch.testing.assert_close(output.logits[kept], wanted["pred_logits"][kept], atol=logits, rtol=0)
    torch.testing.assert_close(output.boxes, wanted["pred_boxes"], atol=boxes, rtol=0)


class TestFamilies(AdapterContract):
    def test_the_contract_is_kept(self, detector: Detector, recorded: Any) -> None:  # type: ignore[override]
        """The plain families' recorded weights are so wild that the padding moves boxes, so theirs are tame here."""
        check_detector(detector if recorded.deformable else tiny_families.build(detector.profile.family))

    def test_a_padded_batch_equals_the_authors(self, output: DetectorOutput, recorded: Any) -> None:
        assert_equal(output, recorded.content, recorded.deformable)

    @pytest.mark.parametrize("index", [0, 1])
    def test_single_images_equal_the_authors(self, index: int, detector: Detector, recorded: Any) -> None:
        found = detector(*pad([recorded.content["images"][index]]))
        assert_equal(found, recorded.content["single"][index], recorded.deformable)

    def test_detections_equal_the_authors(self, detector: Detector, output: DetectorOutput, recorded: Any) -> None:
        found = detector.postprocess(detector.scores(output.logits), output.boxes, recorded.content["orig_sizes"])
        close, pixels = (2e-4, 0.02) if recorded.deformable else (1e-4, 0.05)
        for detections, wanted in zip(found, recorded.content["results"], strict=True):
            torch.testing.assert_close(detections.scores, wanted["scores"], atol=close, rtol=0)
            labels = wanted["labels"].clone()
            labels = labels.apply_(tuple(COCO_NAMES).__getitem__) if recorded.deformable else labels
            # scores that differ by rounding alone may trade places, so each is looked for among its neighbours
            for score, label, box in zip(wanted["scores"], labels, wanted["boxes"], strict=True):
                same = ((detections.scores - score).abs() < close) & (detections.labels == label)
                assert (same & ((detections.boxes - box).abs().amax(1) < pixels)).any()

    def test_features_equal_the_authors(self, detector: Detector, output: DetectorOutput, recorded: Any) -> None:
        assert detector.channels == tuple(feature.shape[1] for feature in output.features)
        for feature, wanted in zip(output.features, recorded.content["feature_stats"].values(), strict=True):
            assert tuple(feature.shape) == tuple(wanted["shape"])
            assert feature.mean().item() == pytest.approx(float(wanted["mean"]), rel=1e-4)
            assert feature.std().item() == pytest.approx(float(wanted["std"]), rel=1e-4)

    def test_the_columns_are_cocos_ids(self, detector: Detector, recorded: Any) -> None:
        assert detector.category_ids == (tuple(COCO_NAMES) if recorded.deformable else tuple(range(91)))
        assert detector.category_names == COCO_NAMES

    def test_the_best_queries_are_refined(self, detector: Detector, output: DetectorOutput, recorded: Any) -> None:
        torch.manual_seed(0)
        refiner = Refiner(detector.channels, detector.strides)
        after = RefinedDetector(detector, refiner, top=30).refined(output, pad(recorded.content["images"])[1])
        changed = (after.boxes != output.boxes).any(-1)  # [B, Q]
        assert changed.sum(1).tolist() == [30, 30]
        scores = detector.scores(output.logits).amax(-1)
        assert all(row[moved].min() >= row[~moved].max() for row, moved in zip(scores, changed, strict=True))

    def test_objects_are_matched_with_queries_that_count(self, detector: Detector, output: DetectorOutput) -> None:
        boxes = torch.tensor([[0.3, 0.4, 0.2, 0.2], [0.7, 0.6, 0.5, 0.4]])
        target = Target(boxes, torch.tensor([0, 7]))
        scores = detector.scores(output.logits)
        matches = match(scores, output.boxes, [target, target], detector.profile.classification)
        assert matches.image.tolist() == [0, 0, 1, 1]
        assert (scores[matches.image, matches.query].amax(-1) > 0).all()

    def test_the_tensors_build_the_same_network(self, detector: Detector, recorded: Any, tmp_path: Path) -> None:
        if not recorded.deformable:
            torch.save(detector.tensors(), tmp_path / "again.pth")
            again = load_detector(recorded.name, tmp_path / "again.pth")
            assert again.weights_sha256() == detector.weights_sha256()

    def test_a_truncated_file_says_so(self, recorded: Any, path: Path, tmp_path: Path) -> None:
        broken = tmp_path / "broken.pth"
        broken.write_bytes(path.read_bytes()[:-20000])
        with pytest.raises(ValueError, match=r"broken\.pth is damaged, incomplete or no checkpoint"):
            load_detector(recorded.name, broken)

    def test_an_incomplete_checkpoint_says_what_is_missing(self, recorded: Any, tmp_path: Path) -> None:
        last = "norms.2" if recorded.deformable else "norm3"
        file = recorded.write(tmp_path / "weights.pth", without(last, recorded.state))
        first = [f"transformer.decoder.layers.{layer}.norm3.{part}" for layer in (0, 1) for part in ("weight", "bias")]
        expected = rf"^{recorded.name}: the checkpoint lacks {', '.join(first[:3])} and \d+ more; expected \d+ tensors$"
        with pytest.raises(ValueError, match=expected):
            load_detector(recorded.name, file)
        if not recorded.deformable:
            file = recorded.write(tmp_path / "weights.pth", without("class_embed.weight", recorded.state))
            with pytest.raises(ValueError, match=r"the checkpoint has no tensor 'class_embed\.weight'; is it complete"):
                load_detector(recorded.name, file)

    def test_an_unknown_tensor_is_named(self, recorded: Any, tmp_path: Path) -> None:
        heads = [key.removesuffix("weight") for key in recorded.state if HEAD.search(key)]
        file = recorded.write(tmp_path / "weights.pth", recorded.state | {f"{heads[0]}scale": torch.ones(1)})
        named = r"class_embed\.0\.scale" if recorded.deformable else r"class_embed\.scale"
        with pytest.raises(ValueError, match=rf"the checkpoint holds unknown {named}; expected \d+ tensors$"):
            load_detector(recorded.name, file)


HEAD = re.compile(r"^((query|bbox)_head\.cls_branches\.0|class_embed)\.weight$")


def without(part: str, state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {key: tensor for key, tensor in state.items() if part not in key}
