"""Where feature maps are in models of transformers whose backbones are timm's."""

import pytest
import torch
from torch import nn

transformers = pytest.importorskip("transformers", reason="an extra: pip install 'refinebox[transformers]'")
pytest.importorskip("timm", reason="an extra: pip install 'refinebox[transformers]'")
from refinebox.adapters.parts.stages import places  # noqa: E402
from refinebox.adapters.parts.taps import Taps  # noqa: E402


def test_maps_of_timms_swin_have_their_channels_where_others_have_them() -> None:
    config = transformers.TimmBackboneConfig(backbone="swin_tiny_patch4_window7_224", out_indices=[1, 2, 3])
    small = {"embed_dim": 8, "depths": (1, 1, 1, 1), "num_heads": (1, 1, 1, 1), "img_size": 128}
    backbone = transformers.TimmBackbone(config, **small).eval()
    images = torch.rand(2, 3, 128, 128, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        network = nn.ModuleList([backbone])
        _, maps = Taps(places(network), backbone, images)(images)
        wanted = backbone(images).feature_maps  # [B, H, W, C]
    assert [tuple(each.shape[1:]) for each in maps] == [(8, 32, 32), (16, 16, 16), (32, 8, 8), (64, 4, 4)]
    assert all(torch.equal(each.permute(0, 2, 3, 1), other) for each, other in zip(maps[1:], wanted, strict=True))
