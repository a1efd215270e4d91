"""torchvision's detection models: with no refinement, detections are the library's own."""

import re
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from adapter_contract import AdapterContract
from PIL import Image
from refinebox.adapters.torchvision import known
from same_detections import found_again, noisy
from torch import Tensor, nn
from torchvision.ops import FrozenBatchNorm2d
from torchvision.transforms.v2 import functional as transforms

from refinebox.detection.detector import Detector
from refinebox.detection.zoo import load_detector

CLASSIFIER = re.compile(r"(cls_logits|cls_score|classification_head\.module_list\.\d+(\.1)?)$")
SHORT, LONG = 128, 192  # pixels
PICTURE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (12, 18, 3), dtype=np.uint8)).resize((144, 96))


def model(name: str, columns: int = 7) -> Any:
    """With random weights that find something."""
    torch.manual_seed(0)
    network = torchvision.models.get_model(name, weights=None, weights_backbone=None, num_classes=columns).train(False)
    if network.transform.fixed_size is None:
        network.transform.min_size, network.transform.max_size = (SHORT,), LONG
    for module in classifiers(network):
        nn.init.normal_(module.bias)
    return network


def classifiers(network: Any) -> list[Any]:
    found = [
        module
        for key, module in network.named_modules()
        if CLASSIFIER.search(key) and isinstance(module, (nn.Conv2d, nn.Linear))
    ]
    assert found
    return found


def with_noise(network: Any) -> Any:
    """Its classifiers say something else of every place, so that no two scores are equal."""
    for module in classifiers(network):
        module.register_forward_hook(lambda _module, _inputs, output: noisy(torch.zeros_like(output), 1.5))
    return network


def tensor_of(picture: Image.Image) -> Tensor:
    pixels: Tensor = transforms.to_dtype(transforms.pil_to_tensor(picture), torch.float32, scale=True)
    return pixels


def opened(network: Any, name: str, folder: Path) -> Detector:
    torch.save(network.state_dict(), folder / "weights.pth")
    detector = load_detector(f"torchvision:{name}", folder / "weights.pth")
    if not detector.profile.input.fixed:
        assert (detector.profile.input.short_side, detector.profile.input.multiple) in ((800, 32), (320, 32))
        detector.resize(SHORT, LONG)
    return detector


@pytest.mark.parametrize("name", known())
def test_detections_equal_the_librarys(name: str, tmp_path: Path) -> None:
    """In the same pixels: the library's scores, labels and boxes."""
    network = with_noise(model(name, columns=2 if "keypoint" in name else 7))
    detector = opened(network, name, tmp_path)
    with_noise(detector.network)
    with torch.no_grad():
        inputs, _ = network.transform([tensor_of(PICTURE)])
        (wanted,) = network([tensor_of(PICTURE)])
    if wanted["scores"].unique().numel() < len(wanted["scores"]) / 2:
        pytest.skip("random weights give a crowd of boxes one score, and which of them survives is chance")
    output = detector(inputs.tensors, torch.tensor(inputs.image_sizes))
    size = torch.tensor([[PICTURE.height, PICTURE.width]])
    (found,) = detector.postprocess(detector.scores(output.logits), output.boxes, size)
    assert len(wanted["scores"]) > 5
    assert abs(len(found.scores) - len(wanted["scores"])) <= 0.02 * len(found.scores)
    assert found_again(found, wanted["boxes"], wanted["scores"], wanted["labels"]) >= 0.97


@pytest.mark.parametrize("name", ["fcos_resnet50_fpn", "ssdlite320_mobilenet_v3_large"])
def test_pictures_come_in_as_the_librarys_transform_makes_them(name: str, tmp_path: Path) -> None:
    network = with_noise(model(name))
    detector = opened(network, name, tmp_path)
    with_noise(detector.network)
    (wanted, _), form = network.transform([tensor_of(PICTURE)]), detector.profile.input
    images, sizes = form.pad([detector.preprocess(PICTURE)])
    torch.testing.assert_close(images, wanted.tensors, atol=1e-5, rtol=1e-5)
    assert [tuple(size) for size in sizes.tolist()] == wanted.image_sizes
    with torch.no_grad():
        (detections,) = network([tensor_of(PICTURE)])
    (found,) = detector.predict([PICTURE])
    torch.testing.assert_close(found.scores, detections["scores"], atol=1e-4, rtol=1e-4)


@pytest.fixture(
    scope="module",
    params=["retinanet_resnet50_fpn_v2", "fasterrcnn_mobilenet_v3_large_fpn", "ssdlite320_mobilenet_v3_large"],
)
def detector(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Detector:
    """One of each kind."""
    return opened(model(request.param), request.param, tmp_path_factory.mktemp("weights"))


class TestTorchvision(AdapterContract):
    pass


@pytest.mark.parametrize(("name", "first"), [("fasterrcnn_resnet50_fpn", 1), ("fcos_resnet50_fpn", 0)])
def test_categories_come_from_the_tensors(name: str, first: int, tmp_path: Path) -> None:
    detector = opened(model(name, columns=5), name, tmp_path)
    assert detector.category_ids == tuple(range(first, 5))
    assert detector.category_names == {}


def test_the_librarys_own_columns_are_cocos(tmp_path: Path) -> None:
    detector = opened(model("ssd300_vgg16", columns=91), "ssd300_vgg16", tmp_path)
    assert detector.category_ids == tuple(range(1, 91))
    assert detector.category_names[18] == "dog"
    assert detector.profile.input.height == detector.profile.input.width == 300


def test_frozen_normalisation_is_told_from_the_tensors(tmp_path: Path) -> None:
    """The library's own weights have it, and no counters of batches."""
    network = with_noise(model("fcos_resnet50_fpn"))
    state = {key: x for key, x in network.state_dict().items() if not key.endswith("num_batches_tracked")}
    torch.save(state, tmp_path / "weights.pth")
    detector = load_detector("torchvision:fcos_resnet50_fpn", tmp_path / "weights.pth")
    assert isinstance(detector.get_submodule("network.backbone.body.bn1"), FrozenBatchNorm2d)
    detector.resize(SHORT, LONG)
    with_noise(detector.network)
    with torch.no_grad():
        (wanted,) = network([tensor_of(PICTURE)])
    torch.testing.assert_close(detector.predict([PICTURE])[0].scores, wanted["scores"], atol=1e-5, rtol=1e-4)


def test_another_models_weights_are_refused(tmp_path: Path) -> None:
    torch.save(model("ssd300_vgg16").state_dict(), tmp_path / "weights.pth")
    with pytest.raises(ValueError, match=rf"^{tmp_path}/weights.pth: the checkpoint lacks .*; expected \d+ tensors$"):
        load_detector("torchvision:retinanet_resnet50_fpn", tmp_path / "weights.pth")


def test_weights_that_cannot_be_fetched_are_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "urlopen", urllib.request.urlopen)  # which refuses, in tests
    expected = r"^could not download https://download\.pytorch\.org/.*\(tests have no network\); try again, or download"
    with pytest.raises(ConnectionError, match=expected):
        load_detector("torchvision:ssd300_vgg16")
