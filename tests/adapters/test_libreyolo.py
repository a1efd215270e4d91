"""libreyolo's detectors: with no refinement, detections are the library's own; a trained YOLOX on real photographs."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from adapter_contract import AdapterContract
from PIL import Image
from same_detections import found_again, noisy
from torchvision.ops import clip_boxes_to_image

from refinebox.detection.detector import Detector
from refinebox.detection.zoo import load_detector

pytest.importorskip("libreyolo", reason="an extra: pip install 'refinebox[libreyolo]'")
from refinebox.adapters import libreyolo as adapter

pytestmark = pytest.mark.filterwarnings("ignore")  # of what the library imports
STRIDES = dict.fromkeys(
    ("yolox-n", "yolo9-t", "picodet-s", "dfine-n", "rtmdet-t", "ppyoloe-s", "yolo2-t"), (4, 8, 16, 32)
)
NOISE = 0.05
PICTURE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (90, 130, 3), dtype=np.uint8))


def wrapper(name: str) -> Any:
    """With random weights, and without the biases that keep scores low at the beginning of a training."""
    torch.manual_seed(0)
    kind, size = adapter.find(name, None)
    model = kind._from_scratch(size=size, nb_classes=5, device="cpu")
    for key, tensor in model.model.state_dict().items():
        if tensor.dim() == 1 and tensor.is_floating_point() and tensor.mean() < -2:
            torch.nn.init.normal_(tensor)
        elif tensor.dim() > 1 and re.search("cls|score", key) and tensor.abs().max() < 0.1:
            tensor.mul_(10)  # classifiers begin with small weights, and all scores would be the same
    model.model.train(False)
    return model


@pytest.fixture(scope="module", params=STRIDES)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def detector(name: str, tmp_path_factory: pytest.TempPathFactory) -> Detector:
    path = tmp_path_factory.mktemp("weights") / "weights.pt"
    torch.save(wrapper(name).model.state_dict(), path)
    return load_detector(f"libreyolo:{name}", path)


class TestLibreYolo(AdapterContract):
    height, width = 300, 400

    def test_the_strides(self, detector: Detector, name: str) -> None:  # type: ignore[override]
        assert detector.strides == STRIDES[name]


def test_detections_equal_the_librarys(detector: Detector, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the same pixels, and with noise in what the network says, as nothing differs in its random weights."""
    model, form = wrapper(name), detector.profile.input
    images, sizes = form.pad([detector.preprocess(PICTURE)])
    theirs = detector._convention.applied(images, sizes)  # type: ignore[attr-defined]
    size = int(sizes[0, 1]), int(sizes[0, 0])
    with torch.no_grad():
        output = noisy(model._forward(theirs), NOISE)
        wanted = model._postprocess(output, adapter.ABOVE, adapter.IOU, size, max_det=adapter.LIMIT, ratio=1.0)
    forward = detector._taps._run  # type: ignore[attr-defined]
    monkeypatch.setattr(detector._taps, "_run", lambda images: noisy(forward(images), NOISE))  # type: ignore[attr-defined]
    output = detector(images, sizes)
    (found,) = detector.postprocess(detector.scores(output.logits), output.boxes, sizes)
    boxes, scores, labels = (torch.as_tensor(wanted[key]) for key in ("boxes", "scores", "classes"))
    # some families of the library cut boxes at the border, and the adapter does where boxes are suppressed
    boxes = clip_boxes_to_image(boxes, size[::-1])
    found = replace(found, boxes=clip_boxes_to_image(found.boxes, size[::-1]))
    assert len(scores) > 5
    assert abs(len(found.scores) - len(scores)) <= 0.02 * len(scores)
    assert found_again(found, boxes, scores, labels) >= 0.97


@pytest.fixture(scope="module")
def trained(shared: Path) -> Detector:
    return load_detector("libreyolo:yolox-n", shared / "data/weights/yolox_nano_libreyolo.pt")


def test_a_trained_detector_finds_what_the_library_finds(trained: Detector, shared: Path) -> None:
    from libreyolo import LibreYOLOX

    model = LibreYOLOX(str(shared / "data/weights/yolox_nano_libreyolo.pt"), size="n", device="cpu")
    for path in sorted((shared / "data/coco-mini/val2017").glob("*.jpg"))[:3]:
        wanted = model(str(path), conf=0.3, iou=adapter.IOU)
        wanted = wanted[0] if isinstance(wanted, list) else wanted
        (found,) = trained.predict([path])
        kept = found.scores > 0.3
        torch.testing.assert_close(found.scores[kept], wanted.boxes.conf.cpu(), atol=1e-3, rtol=0)
        # the library divides by its scale, ours by the sides of the picture that it was rounded to: a pixel at most
        torch.testing.assert_close(found.boxes[kept], wanted.boxes.xyxy.cpu(), atol=2.0, rtol=0)


def test_predictions_are_no_features(detector: Detector) -> None:
    predictions = 5 * (4 + 1 + 5)  # anchors, each with a box, an object and categories, as the networks of Darknet say
    assert min(detector.channels) > 5
    assert predictions not in detector.channels


@pytest.mark.parametrize("name", ["ssd-300", "fcos-r50", "faster_rcnn-n"])
def test_what_torchvision_has_is_named_as_there(name: str) -> None:
    with pytest.raises(ValueError, match=rf"is torchvision's, .* name {name} as torchvision does"):
        load_detector(f"libreyolo:{name}")


def test_an_unknown_name_lists_the_families() -> None:
    with pytest.raises(ValueError, match=r"^libreyolo has no detector 'yolo99'; known: .*yolox-n\|t\|s\|m\|l\|x"):
        load_detector("libreyolo:yolo99")


def test_weights_that_do_not_fit_are_named(shared: Path) -> None:
    with pytest.raises(ValueError, match=r"yolox_nano_libreyolo\.pt: the checkpoint"):
        load_detector("libreyolo:yolo9-t", shared / "data/weights/yolox_nano_libreyolo.pt")
