"""The Swin Transformer against torchvision's, and as the backbone of a DAB-DETR in detrex's layout."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from refinebox.adapters.dab_detr import DabDetr
from refinebox.adapters.layouts.recognise import to_authors
from refinebox.adapters.parts.sizes import Sizes
from refinebox.adapters.parts.swin import Swin, SwinSizes
from torch import Tensor
from torch.nn import functional as F
from torchvision.models.swin_transformer import SwinTransformer

from refinebox.detection.zoo import load_detector

SIZES = SwinSizes(depths=(2, 2, 3, 2), heads=(2, 4, 8, 16), channels=(8, 16, 32, 64), window=3)
TO_TORCHVISION = (
    (r"patch_embed\.proj\.", "features.0.0."),
    (r"patch_embed\.norm\.", "features.0.2."),
    (r"\.mlp\.fc1\.", ".mlp.0."),
    (r"\.mlp\.fc2\.", ".mlp.3."),
)


@pytest.fixture
def swin() -> Swin:
    """Random in all tensors, biases and normalisations as well."""
    torch.manual_seed(0)
    network = SIZES.build(False, torch.nn.Identity)
    for name, parameter in network.named_parameters():
        torch.nn.init.normal_(parameter, mean=float("norm" in name and "weight" in name), std=0.3)
    return network.eval()


def torchvisions(swin: Swin) -> SwinTransformer:
    """The same weights in torchvision's network, up to the last normalisation."""
    network = SwinTransformer([4, 4], 8, [2, 2, 3, 2], [2, 4, 8, 16], [3, 3], stochastic_depth_prob=0.0)
    renamed = {}
    for key, tensor in swin.state_dict().items():
        for here, there in TO_TORCHVISION:
            key = re.sub(here, there, key)
        key = re.sub(r"layers\.(\d)\.blocks\.", lambda found: f"features.{2 * int(found[1]) + 1}.", key)
        key = re.sub(r"layers\.(\d)\.downsample\.", lambda found: f"features.{2 * int(found[1]) + 2}.", key)
        renamed[key.replace("norm3.", "norm.", 1) if key.startswith("norm3.") else key] = tensor
    missing, unexpected = network.load_state_dict(renamed, strict=False)
    assert [key for key in missing if not key.endswith("relative_position_index") and "head" not in key] == []
    assert set(unexpected) == {f"norm{stage}.{part}" for stage in range(3) for part in ("weight", "bias")}
    return network.eval()


@pytest.mark.parametrize("side", [(128, 164), (148, 132)])
def test_equals_torchvisions(side: tuple[int, int], swin: Swin) -> None:
    """Sizes are such that windows and merges need padding, and that no map is smaller than a window."""
    images = torch.randn(2, 3, *side, generator=torch.Generator().manual_seed(1))
    reference = torchvisions(swin)
    with torch.no_grad():
        found = swin(images)
        x = images
        for index, block in enumerate(reference.features):
            x = block(x)
            if index % 2:  # after the blocks of a stage
                norm = swin.get_submodule(f"norm{index // 2}")
                torch.testing.assert_close(found[index // 2], norm(x).permute(0, 3, 1, 2), atol=2e-4, rtol=1e-4)
        torch.testing.assert_close(found[3], reference.norm(x).permute(0, 3, 1, 2), atol=2e-4, rtol=1e-4)
    assert [tuple(feature.shape[1:]) for feature in found] == [
        (8 << stage, -(-side[0] // (4 << stage)), -(-side[1] // (4 << stage))) for stage in range(4)
    ]


def test_images_are_padded_to_whole_patches(swin: Swin) -> None:
    images = torch.randn(1, 3, 62, 69)
    with torch.no_grad():
        for found, wanted in zip(swin(images), swin(F.pad(images, (0, 3, 0, 2))), strict=True):
            assert torch.equal(found, wanted)


def test_shifted_windows_do_not_see_across_the_border(swin: Swin) -> None:
    """What was rolled in from the opposite border stands in the window, but apart."""
    stage = swin.get_submodule("layers.0.blocks.1.attn")
    x = torch.randn(1, 9, 9, 8)
    changed = x.clone()
    changed[:, -1] += 5
    with torch.no_grad():
        moved = (stage(x) - stage(changed)).abs().amax((0, 2, 3)) > 1e-4  # [h]
    assert moved.tolist() == [False] * 7 + [True] * 2


def test_sizes_are_read_from_the_tensors(swin: Swin) -> None:
    state = {f"body.{key}": tensor for key, tensor in swin.state_dict().items()}
    assert SwinSizes.read(state, "body.") == SIZES


def test_it_cannot_be_dilated() -> None:
    with pytest.raises(ValueError, match=r"^a Swin Transformer cannot be dilated; name a detector without DC5$"):
        SIZES.build(True, torch.nn.Identity)


@pytest.fixture
def published(tiny: Sizes, swin: Swin) -> dict[str, Tensor]:
    """A DAB-DETR as detrex publishes it: with the last map's normalisation alone, and with indices."""
    torch.manual_seed(0)
    state = DabDetr(replace(tiny, backbone=SIZES)).state_dict()
    state |= {f"backbone.0.body.{key}": tensor for key, tensor in swin.state_dict().items()}
    kept = {key: tensor for key, tensor in state.items() if not re.search(r"body\.norm[0-2]\.", key)}
    index = {
        f"backbone.0.body.layers.{stage}.blocks.0.attn.relative_position_index": torch.zeros(9, 9).long()
        for stage in range(4)
    }
    return {key.replace("backbone.0.body.", "backbone."): tensor for key, tensor in (kept | index).items()}


def test_a_file_with_one_normalisation_is_completed(published: dict[str, Tensor], swin: Swin, tmp_path: Path) -> None:
    torch.save({"model": published}, tmp_path / "swin.pth")
    detector = load_detector("dab-detr-swin-t", tmp_path / "swin.pth")
    assert (detector.strides, detector.channels) == ((4, 8, 16, 32), (8, 16, 32, 64))
    assert detector.profile.layout == "detrex"
    images = torch.randn(1, 3, 64, 96)
    features = detector(images, torch.tensor([[64, 96]])).features
    for stage in range(3):
        norm = swin.get_submodule(f"norm{stage}")
        torch.nn.init.ones_(norm.weight)
        torch.nn.init.zeros_(norm.bias)
    with torch.no_grad():
        for found, wanted in zip(features, swin(images), strict=True):
            torch.testing.assert_close(found, wanted, atol=1e-4, rtol=1e-4)


def test_a_completed_detector_is_written_and_read(published: dict[str, Tensor], tmp_path: Path) -> None:
    torch.save({"model": published}, tmp_path / "swin.pth")
    first = load_detector("dab-detr-swin-t", tmp_path / "swin.pth")
    torch.save(first.tensors(), tmp_path / "again.pth")
    assert load_detector("dab-detr-swin-t", tmp_path / "again.pth").weights_sha256() == first.weights_sha256()


def test_a_dilated_name_is_refused(published: dict[str, Tensor], tmp_path: Path) -> None:
    torch.save({"model": published}, tmp_path / "swin.pth")
    with pytest.raises(ValueError, match=r"^a Swin Transformer cannot be dilated; name a detector without DC5$"):
        load_detector("dab-detr-r50-dc5", tmp_path / "swin.pth")


TO_TRANSFORMERS = (
    (r"^patch_embed\.proj\.", "swin.embeddings.patch_embeddings.projection."),
    (r"^patch_embed\.norm\.", "swin.embeddings.norm."),
    (r"^norm(\d)\.", lambda found: f"hidden_states_norms.stage{int(found[1]) + 1}."),
    (r"^layers\.", "swin.encoder.layers."),
    (r"\.norm1\.", ".layernorm_before."),
    (r"\.norm2\.", ".layernorm_after."),
    (r"\.attn\.proj\.", ".attention.o_proj."),
    (r"\.attn\.relative_position", ".attention.relative_position_bias.relative_position"),
)


@pytest.mark.parametrize("side", [(96, 96), (100, 132), (62, 83), (33, 47)])
def test_equals_that_of_transformers_at_any_size(side: tuple[int, int], swin: Swin) -> None:
    """As mmdetection's is: maps are padded to whole windows before they are shifted, also where one window suffices."""
    transformers = pytest.importorskip("transformers", reason="transformers is what this is compared with")
    stages = [f"stage{stage}" for stage in range(1, 5)]
    config = transformers.SwinConfig(
        embed_dim=8, depths=[2, 2, 3, 2], num_heads=[2, 4, 8, 16], window_size=3, out_features=stages
    )
    theirs = transformers.SwinBackbone(config).eval()
    renamed = {}
    for key, tensor in swin.state_dict().items():
        for here, there in TO_TRANSFORMERS:
            key = re.sub(here, there, key)
        if ".attn.qkv." in key:
            for letter, part in zip("qkv", tensor.chunk(3), strict=True):
                renamed[key.replace("attn.qkv", f"attention.{letter}_proj")] = part
        else:
            renamed[key] = tensor
    missing, unexpected = theirs.load_state_dict(renamed, strict=False)
    assert unexpected == []
    assert set(missing) == {"swin.layernorm.weight", "swin.layernorm.bias"}
    images = torch.randn(2, 3, *side, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        for found, wanted in zip(swin(images), theirs(images).feature_maps, strict=True):
            torch.testing.assert_close(found, wanted, atol=2e-5, rtol=1e-4)


def mmdets(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same weights as mmdetection names and orders them."""
    rules = (
        (r"^patch_embed\.proj\.", "patch_embed.projection."),
        (r"^layers\.", "stages."),
        (r"\.attn\.", ".attn.w_msa."),
        (r"\.mlp\.fc1\.", ".ffn.layers.0.0."),
        (r"\.mlp\.fc2\.", ".ffn.layers.1."),
    )
    renamed = {}
    for key, tensor in state.items():
        for here, there in rules:
            key = re.sub(here, there, key)
        if "downsample" in key:  # from [cell, channel] with cells column by column to [channel, cell] row by row
            cells = tensor.unflatten(-1, (4, -1)).transpose(-1, -2)
            tensor = cells[..., [0, 2, 1, 3]].flatten(-2)
        renamed[f"backbone.{key}"] = tensor
    return renamed


def test_mmdetections_names_and_order_are_read(swin: Swin) -> None:
    renamed = mmdets(swin.state_dict()) | {"bbox_head.cls_branches.0.weight": torch.ones(1)}
    found, layout = to_authors(renamed)
    assert layout == "mmdet3"
    own = {f"backbone.0.body.{key}": tensor for key, tensor in swin.state_dict().items()}
    assert {key for key in found if key.startswith("backbone.")} == set(own)
    assert [key for key, tensor in own.items() if not torch.equal(found[key], tensor)] == []


def test_merging_in_mmdetections_order_is_unfolding(swin: Swin) -> None:
    """Which says that the order above is theirs: they merge with torch's unfold."""
    state = {key: tensor for key, tensor in mmdets(swin.state_dict()).items() if "stages.0.downsample" in key}
    norm, reduction = (state[f"backbone.stages.0.downsample.{part}"] for part in ("norm.weight", "reduction.weight"))
    bias = state["backbone.stages.0.downsample.norm.bias"]
    maps = torch.randn(1, 8, 6, 10, generator=torch.Generator().manual_seed(0))
    merged = F.unfold(maps, 2, stride=2).transpose(1, 2)  # [1, 15, 4 * 8]
    wanted = F.linear(F.layer_norm(merged, (32,), norm, bias), reduction)
    with torch.no_grad():
        found = swin.layers[0].downsample(maps.permute(0, 2, 3, 1))
    torch.testing.assert_close(found.flatten(1, 2), wanted, atol=1e-4, rtol=1e-4)
