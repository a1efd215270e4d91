"""The parts of the training benchmark, on a tiny detector; what they measure is not judged here."""

from pathlib import Path
from types import ModuleType

import pytest
import torch
from refinebox.adapters.layouts.recognise import to_authors
from refinebox.adapters.parts.sizes import Sizes
from torch import Tensor

from refinebox.detection.detector import Detector

SIZE = 64, 96


@pytest.fixture(scope="module")
def small(script: ModuleType, tiny: Sizes) -> Detector:
    detector: Detector = script.untrained(tiny)
    detector.resize(64, 128)
    return detector


def positive(figures: dict[str, float]) -> set[str]:
    assert all(figure > 0 for figure in figures.values())
    return set(figures)


def test_latency(script: ModuleType, small: Detector) -> None:
    figures = script.latency(small, (1, 2), SIZE, repeats=2)
    assert positive(figures) >= {"latency_ratio", "latency_ratio at batch 2"}
    assert figures["latency_ratio"] == pytest.approx(figures["upgraded detector, s"] / figures["frozen detector, s"])


def test_added_cost(script: ModuleType, small: Detector) -> None:
    threads = torch.get_num_threads()
    figures = script.added(small, SIZE, repeats=2)
    assert positive(figures) >= {"added_cost, published", "added_cost, spatial", "added_cost, spatial with quality"}
    seconds = figures["refining, spatial with quality, CPU s"] / figures["frozen detector, CPU s"]
    assert figures["added_cost"] == pytest.approx(seconds)
    assert torch.get_num_threads() == threads


def test_training(script: ModuleType, small: Detector) -> None:
    figures = script.training(small, 2, SIZE, repeats=2)
    assert "train_step_ratio" in positive(figures)
    assert figures["train_step_ratio"] > 1  # a step contains the frozen forward pass


def test_refinement(script: ModuleType, small: Detector) -> None:
    figures = script.refinement(small, (1, 5), SIZE, repeats=1)
    assert positive(figures) >= {"refine_step_speedup", "refine_step_speedup with a pyramid at every move"}


def test_a_reference_with_other_losses_is_no_comparison(
    script: ModuleType, small: Detector, monkeypatch: pytest.MonkeyPatch
) -> None:
    reference = script.reference_losses

    def wrong(*arguments: object, **options: object) -> dict[str, Tensor]:
        return {name: 1.01 * loss for name, loss in reference(*arguments, **options).items()}

    monkeypatch.setattr(script, "reference_losses", wrong)
    with pytest.raises(ValueError, match="the comparison is void"):
        script.refinement(small, (1, 5), SIZE, repeats=1)


def test_loading(script: ModuleType, small: Detector, tmp_path: Path) -> None:
    figures = script.loading(small, tmp_path, 4, (48, 64), repeats=1)
    assert len(positive(figures)) == 3
    assert len(list(tmp_path.glob("*.jpg"))) == 4


def test_memory_is_that_of_each_training_alone(script: ModuleType, tiny: Sizes) -> None:
    ballast = torch.ones(1_000_000_000, dtype=torch.uint8)  # of this process, which no figure must contain
    figures = script.memory(tiny, (8, 1), (160, 192), steps=1)
    assert positive(figures) == {"peak GiB of training at batch 8", "peak GiB of training at batch 1"}
    own = script.resource.getrusage(script.resource.RUSAGE_SELF).ru_maxrss / 2**20
    assert max(figures.values()) < own - ballast.nbytes / 2**30 / 2
    assert (
        figures["peak GiB of training at batch 1"] < figures["peak GiB of training at batch 8"]
    )  # though it came later


def test_random_objects_lie_inside_their_image(script: ModuleType) -> None:
    batch = script.random_batch([3, 0, 40], SIZE, 6)
    assert [len(target.boxes) for target in batch.targets] == [3, 0, 40]
    for target in batch.targets:
        low, high = target.boxes[:, :2] - target.boxes[:, 2:] / 2, target.boxes[:, :2] + target.boxes[:, 2:] / 2
        assert (low > -1e-6).all()
        assert (high < 1 + 1e-6).all()
        assert (target.columns < 6).all()


def test_the_measured_detector_is_dab_detr_r50(script: ModuleType) -> None:
    transformers = pytest.importorskip("transformers", reason="transformers is not installed; pip install -e '.[test]'")
    config = transformers.DabDetrConfig(
        backbone_config=transformers.ResNetConfig(out_features=["stage4"]),
        use_timm_backbone=False,
        use_pretrained_backbone=False,
        backbone=None,
        num_labels=91,
    )
    with torch.device("meta"):
        theirs = to_authors(transformers.DabDetrForObjectDetection(config).state_dict())[0]
        ours = script.DabDetr(script.R50).state_dict()
    assert {name: tensor.shape for name, tensor in ours.items()} == {name: t.shape for name, t in theirs.items()}
