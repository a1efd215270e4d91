"""What the fused pyramid computes, and the level that is made of pixels."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional

from refinebox.data.annotations import CocoData
from refinebox.detection.detector import Detector
from refinebox.detection.output import DetectorOutput
from refinebox.refinement.architecture import PUBLISHED, SPATIAL
from refinebox.refinement.pyramid import FeaturePyramid
from refinebox.refinement.refined_detector import RefinedDetector
from refinebox.refinement.refiner import Refiner
from refinebox.refinement.refiner_file import load_refiner
from refinebox.training.cache import Cache
from refinebox.training.learner import observed_losses
from refinebox.training.lessons import Lessons
from refinebox.training.settings import Settings
from refinebox.training.train import train

SETTINGS = Settings(epochs=1, batch_size=3, jitter=1, augmentation="none", variants=1, held_out=0.0)


@pytest.fixture
def coarse(make_detector: Callable[..., Detector], monkeypatch: pytest.MonkeyPatch) -> Detector:
    """A detector whose finest map has stride 16."""
    fine = type(make_detector())
    detect, extract = fine.detect, fine.extract

    def without_fine(self: Detector, images: Tensor, sizes: Tensor) -> DetectorOutput:
        output = detect(self, images, sizes)
        return replace(output, features=output.features[-2:])

    monkeypatch.setattr(fine, "detect", without_fine)
    monkeypatch.setattr(fine, "extract", lambda self, images, sizes: extract(self, images, sizes)[-2:])
    return make_detector()


def test_fused_levels_go_down_convolved() -> None:
    """As written out by hand: normalised sums, activated and convolved, and only then handed down."""
    torch.manual_seed(0)
    pyramid = FeaturePyramid((6, 8), fused=True)
    for norm in (module for module in pyramid.modules() if isinstance(module, nn.LayerNorm)):
        nn.init.normal_(norm.weight, 1, 0.2)
    fine, coarse = torch.randn(2, 6, 7, 9), torch.randn(2, 8, 4, 5)
    parts = pyramid.state_dict()

    def convolved(maps: Tensor, name: str) -> Tensor:
        weight, bias = parts[f"{name}.weight"], parts[f"{name}.bias"]
        maps = functional.conv2d(maps, weight, bias, padding=weight.shape[-1] // 2)
        normed = (maps - maps.mean(1, keepdim=True)) / (maps.var(1, correction=0, keepdim=True) + 1e-5).sqrt()
        return normed * parts[f"{name}.norm.weight"][:, None, None] + parts[f"{name}.norm.bias"][:, None, None]

    top = convolved(functional.silu(convolved(coarse, "fpn_lateral3")), "fpn_output3")
    handed = top.repeat_interleave(2, 2).repeat_interleave(2, 3)[..., :7, :9]
    bottom = convolved(functional.silu(convolved(fine, "fpn_lateral2") + handed), "fpn_output2")
    for found, expected in zip(pyramid([fine, coarse]), (bottom, top), strict=True):
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_coarse_maps_ask_for_a_stem() -> None:
    assert SPATIAL.suited((16,)).stem
    assert SPATIAL.suited((14, 28)).stem
    assert not SPATIAL.suited((8, 16, 32)).stem
    assert not PUBLISHED.suited((16,)).stem
    assert SPATIAL.suited((16,)).name == "spatial"


def test_its_level_has_stride_four() -> None:
    refiner = Refiner((8,), (16,), architecture=replace(SPATIAL, stem=True))
    pyramid = refiner.channel_mapper([torch.rand(1, 3, 96, 130), torch.rand(1, 8, 6, 9)])
    assert [tuple(level.shape) for level in pyramid] == [(1, 64, 24, 33), (1, 64, 6, 9)]
    assert refiner.levels == (4, 16)


def test_pixels_out_of_reach_do_not_matter() -> None:
    """A cache keeps the pixels of STEM_REACH around what is pooled."""
    refiner = Refiner((8,), (16,), 1, replace(SPATIAL, stem=True))
    torch.nn.init.normal_(refiner.bboxes_refiner.bboxes_deltas.weight, std=0.02)  # so that no move is cut
    image, feature = torch.rand(1, 3, 128, 128), torch.rand(1, 8, 8, 8)
    boxes, sizes = torch.tensor([[[0.5, 0.5, 0.125, 0.125]]]), torch.tensor([[128, 128]])
    [plain] = refiner([image, feature], boxes, sizes)
    low, high = 64 - 10 - 16, 64 + 10 + 16  # half of 1.25 times 16 pixels, and the reach
    near = torch.zeros_like(image)
    near[..., low:high, low:high] = image[..., low:high, low:high]
    [known] = refiner([near, feature], boxes, sizes)
    assert torch.equal(plain, known)
    near[..., low : low + 14, :] = 0
    assert not torch.equal(plain, refiner([near, feature], boxes, sizes)[0])


def test_a_training_on_coarse_maps_has_one(
    coarse: Detector, training: CocoData, validation: CocoData, tmp_path: Path
) -> None:
    assert coarse.strides == (16, 16)  # this backbone is dilated
    train(coarse, training, validation, tmp_path / "run", SETTINGS, cache=tmp_path / "cache")
    refiner = load_refiner(tmp_path / "run" / "best.safetensors")
    assert refiner.architecture.stem
    model = RefinedDetector(coarse, refiner)
    picture = Image.new("RGB", (90, 70), (20, 200, 120))
    assert len(model.predict([picture])[0].boxes) > 0


def test_cached_pixels_teach_the_same(coarse: Detector, training: CocoData, tmp_path: Path) -> None:
    settings = replace(SETTINGS, architecture=SPATIAL.suited(coarse.strides))
    plain, cached = (Lessons(coarse, training, settings, cache=folder) for folder in (None, tmp_path))
    assert isinstance(cached.cache, Cache)
    torch.manual_seed(0)
    refiner = Refiner(coarse.channels, coarse.strides, 1, settings.architecture)
    [batch], [piece] = next(plain.batches(0)), next(cached.batches(0))
    first = plain.observe(batch)
    for seen in (cached.observe(piece), cached.observe(next(cached.batches(0))[0])):
        assert [feature.shape for feature in seen.features] == [feature.shape for feature in first.features]
        losses = observed_losses(refiner, seen, 1, key="0"), observed_losses(refiner, first, 1, key="0")
        for name, loss in losses[1].items():
            assert losses[0][name].item() == pytest.approx(loss.item(), rel=1e-3), name


def test_an_output_without_images_is_refused() -> None:
    refiner = Refiner((8,), (16,), architecture=replace(SPATIAL, stem=True))
    output = DetectorOutput((torch.rand(1, 8, 6, 9),), torch.rand(1, 3, 4), torch.rand(1, 3, 2))
    with pytest.raises(ValueError, match=r"^this refiner looks at the pixels, but the output has no images; pass"):
        refiner.reads(output)
