"""Backbones of libraries as sources of features."""

from pathlib import Path

import pytest
import timm
import torch
import torchvision

from refinebox.adapters import bare_backbone
from refinebox.detection.zoo import build, describe, load_features, load_given, profile_from


def saved(name: str, path: Path) -> Path:
    library, _, model = name.partition(":")
    torch.manual_seed(0)
    whole = torchvision.models.get_model(model) if library == "torchvision" else timm.create_model(model)
    torch.save(whole.state_dict(), path)
    return path


@pytest.mark.parametrize(
    ("name", "channels"),
    [
        ("torchvision:resnet18", (64, 128, 256, 512)),
        ("torchvision:mobilenet_v3_small", (16, 24, 48, 576)),
        ("timm:resnet10t", (64, 128, 256, 512)),
        ("timm:convnext_atto", (40, 80, 160, 320)),
    ],
)
def test_maps_of_all_strides_are_there(name: str, channels: tuple[int, ...], tmp_path: Path) -> None:
    backbone = load_features(name, saved(name, tmp_path / "weights.pth"))
    assert (backbone.strides, backbone.channels) == ((4, 8, 16, 32), channels)
    again = build(backbone.tensors(), profile_from(describe(backbone), "file"), "file")
    images, sizes = torch.randn(1, 3, 90, 140), torch.tensor([[90, 140]])
    features = backbone.features(images, sizes)
    assert [tuple(x.shape[-2:]) for x in features] == [(24, 40), (12, 20), (6, 10), (3, 5)]  # padded to 96 x 160
    assert all(map(torch.equal, features, again.features(images, sizes)))
    assert again.profile == backbone.profile


def test_features_are_the_librarys(tmp_path: Path) -> None:
    backbone = load_features("torchvision:resnet18", saved("torchvision:resnet18", tmp_path / "weights.pth"))
    whole = torchvision.models.resnet18()
    whole.load_state_dict(torch.load(tmp_path / "weights.pth", weights_only=True))
    whole.eval()
    images = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        x = whole.maxpool(whole.relu(whole.bn1(whole.conv1(images))))
        expected = []
        for stage in (whole.layer1, whole.layer2, whole.layer3, whole.layer4):
            x = stage(x)
            expected.append(x)
    found = backbone.features(images, torch.tensor([[64, 96]]))
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


def test_the_weights_of_another_model_are_refused(tmp_path: Path) -> None:
    weights = saved("torchvision:resnet34", tmp_path / "weights.pth")
    with pytest.raises(ValueError, match=r"^torchvision:resnet18: the checkpoint holds unknown layer1\.2\.conv1"):
        load_features("torchvision:resnet18", weights)


def test_weights_that_cannot_be_had_are_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    expected = r"^could not download the weights of torchvision:resnet18 \(.*\); try again, or name their file"
    with pytest.raises(ConnectionError, match=expected):
        load_features("torchvision:resnet18")


@pytest.mark.parametrize("name", ["timm:none_such", "torchvision:none_such"])
def test_models_that_are_not_there_are_told(name: str) -> None:
    source, model = name.split(":")
    with pytest.raises(ValueError, match=rf"^({name} cannot be |{source} has no .*'{model}')"):
        load_features(name)


def test_a_backbone_gives_features_to_boxes(tmp_path: Path) -> None:
    given = load_given("torchvision:resnet18", saved("torchvision:resnet18", tmp_path / "weights.pth"))
    assert given.strides == (4, 8, 16, 32)
    assert given.profile.name == "given boxes on torchvision:resnet18"


def test_a_backbone_of_one_size_is_refused() -> None:
    expected = r"^torchvision:vit_b_16 does not take images of any size \(.*\); name another backbone$"
    with pytest.raises(ValueError, match=expected):
        bare_backbone._of_torchvision("vit_b_16", own_weights=False)
