"""torchvision's detection models: with no refinement, detections are the library's own."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image
from refinebox.adapters.torchvision import known
from torchvision.transforms.v2 import functional as transforms

from refinebox.detection.detector import Detector
from refinebox.detection.zoo import load_detector

SMALL = {"min_size": 128, "max_size": 160}


def model(name: str, columns: int = 91) -> Any:
    """With random weights that find something: classifiers that differ from cell to cell."""
    torch.manual_seed(0)
    network = torchvision.models.get_model(name, weights=None, weights_backbone=None, num_classes=columns).train(False)
    for key, tensor in network.state_dict().items():
        if key.endswith("running_var"):
            tensor.fill_(0.3)
        elif any(part in key for part in ("cls_logits", "cls_score", "classification_head.module_list")):
            tensor.copy_(torch.randn_like(tensor) * (0.5 if tensor.dim() > 1 else 1.0))
    return network


def image(height: int, width: int) -> Image.Image:
    generator = np.random.default_rng(0)
    small = Image.fromarray(generator.integers(0, 256, (height // 8, width // 8, 3), dtype=np.uint8))
    return small.resize((width, height))


def opened(network: Any, name: str, folder: Path) -> Detector:
    torch.save(network.state_dict(), folder / "weights.pth")
    return load_detector(f"torchvision:{name}", folder / "weights.pth")


@pytest.mark.parametrize("name", known())
def test_detections_equal_the_librarys(name: str, tmp_path: Path) -> None:
    network = model(name, columns=2 if "keypoint" in name else 7)
    detector = opened(network, name, tmp_path)
    picture = image(96, 144)
    with torch.no_grad():
        (wanted,) = network([transforms.to_dtype(transforms.pil_to_tensor(picture), torch.float32, scale=True)])
    (found,) = detector.predict([picture])
    assert len(wanted["scores"]) > 5
    assert len(found.scores) == len(wanted["scores"])
    torch.testing.assert_close(found.scores, wanted["scores"], atol=1e-5, rtol=1e-4)
    for box, score, label in zip(found.boxes, found.scores, found.labels, strict=True):
        same = ((wanted["boxes"] - box).abs().amax(1) < 0.01) & ((wanted["scores"] - score).abs() < 1e-4)
        assert (same & (wanted["labels"] == label)).any()
