"""EfficientDet: with no refinement, detections are those of the library's own bench."""

from pathlib import Path
from typing import Any

import pytest
import torch
from adapter_contract import AdapterContract

from refinebox.detection.detector import Detector
from refinebox.detection.zoo import load_detector

effdet = pytest.importorskip("effdet", reason="EfficientDet is an extra: pip install 'refinebox[effdet]'")


def network(**options: Any) -> Any:
    """Of the smallest configuration, with classifiers that differ from cell to cell."""
    torch.manual_seed(0)
    model = effdet.create_model("tf_efficientdet_lite0", pretrained_backbone=False, **options).train(False)
    for name, tensor in model.state_dict().items():
        if name.endswith("running_var"):
            tensor.fill_(0.3)
        elif "predict" in name:
            tensor.copy_(0.02 * torch.randn_like(tensor))
    return model


@pytest.fixture(scope="module")
def detector(tmp_path_factory: pytest.TempPathFactory) -> Detector:
    path = tmp_path_factory.mktemp("weights") / "weights.pth"
    torch.save(network(num_classes=5).state_dict(), path)
    return load_detector("effdet:tf_efficientdet_lite0", path)


class TestEfficientDet(AdapterContract):
    height, width = 320, 320


def test_detections_equal_the_librarys(detector: Detector) -> None:
    height, width, scale = 320, 200, 2.5
    images = torch.randn(1, 3, 320, 320)
    images[..., width:] = 0
    info = {"img_scale": torch.tensor([scale]), "img_size": torch.tensor([[scale * width, scale * height]])}
    with torch.no_grad():
        wanted = effdet.DetBenchPredict(network(num_classes=5))(images, info)[0]
    output = detector(images[..., :width], torch.tensor([[height, width]]))
    (found,) = detector.postprocess(
        detector.scores(output.logits), output.boxes, torch.tensor([[scale * height, scale * width]])
    )
    assert len(found.scores) == len(wanted) == 100
    torch.testing.assert_close(found.scores, wanted[:, 4])
    torch.testing.assert_close(found.boxes, wanted[:, :4], atol=1e-3, rtol=1e-5)
    assert torch.equal(found.labels, wanted[:, 5].long())


@pytest.mark.parametrize("name", ["tf_efficientdet_d0", "efficientdetv2_dt", "cspresdet50"])
def test_the_configuration_says_how_images_come_in(name: str, tmp_path: Path) -> None:
    config = effdet.get_efficientdet_config(name)
    torch.save(effdet.EfficientDet(config, pretrained_backbone=False).state_dict(), tmp_path / "weights.pth")
    detector = load_detector(f"effdet:{name}", tmp_path / "weights.pth")
    form = detector.profile.input
    assert (form.fit, form.height, form.width) == ("letterbox", *config.image_size)
    assert detector.category_ids == tuple(range(1, 91))
    assert detector.category_names[18] == "dog"


def test_another_model_of_the_library_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^effdet has no model 'resnet50'; known: .*tf_efficientdet_d0"):
        load_detector("effdet:resnet50")


def test_weights_that_do_not_fit_are_named(tmp_path: Path) -> None:
    torch.save(network().state_dict(), tmp_path / "weights.pth")
    with pytest.raises(ValueError, match=rf"^{tmp_path}/weights.pth: the checkpoint lacks .*; expected \d+ tensors$"):
        load_detector("effdet:tf_efficientdet_d1", tmp_path / "weights.pth")
