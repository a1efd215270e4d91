"""Checkpoints that a name does not fit are refused in one line, whatever is wrong."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from refinebox.adapters.conditional_detr import ConditionalDetr
from refinebox.adapters.detr import Detr
from refinebox.adapters.parts.backbone import ResNetSizes
from refinebox.adapters.parts.network import Network
from refinebox.adapters.parts.sizes import Sizes

from refinebox.detection.profile import Profile
from refinebox.detection.zoo import build, load_detector

BASIC = ResNetSizes(bottleneck=False, stem=8, depths=(2, 2, 2, 2), inner=(8, 8, 16, 16), channels=(8, 8, 16, 16))


def saved(network: Network, path: Path) -> Path:
    torch.save({"model": network.state_dict()}, path)
    return path


def test_blocks_of_two_convolutions_are_read(tiny: Sizes, tmp_path: Path) -> None:
    detector = load_detector("detr-r50", saved(Detr(replace(tiny, backbone=BASIC)), tmp_path / "r18.pth"))
    assert (detector.strides, detector.channels) == ((4, 8, 16, 32), (8, 8, 16, 16))


def test_blocks_of_two_convolutions_cannot_be_dilated(tiny: Sizes, tmp_path: Path) -> None:
    path = saved(Detr(replace(tiny, backbone=BASIC)), tmp_path / "r18.pth")
    with pytest.raises(
        ValueError, match=r"^a ResNet with blocks of two convolutions cannot be dilated; name a detector without DC5$"
    ):
        load_detector("detr-r50-dc5", path)


def test_a_width_that_heads_do_not_divide_is_refused(tiny: Sizes, tmp_path: Path) -> None:
    path = saved(Detr(replace(tiny, width=36), heads=4), tmp_path / "wide.pth")
    expected = "^36 channels cannot be shared among 8 heads; check the number of heads$"
    with pytest.raises(ValueError, match=expected):
        load_detector("detr-r50", path)


def test_queries_that_are_no_whole_groups_are_refused(tiny: Sizes, tmp_path: Path) -> None:
    path = saved(ConditionalDetr(tiny), tmp_path / "ungrouped.pth")
    with pytest.raises(ValueError, match=r"queries are no 11 groups of equal size; name another detector$"):
        load_detector("group-detr-r50", path)


def test_a_setting_that_the_network_does_not_know_is_named(tiny: Sizes) -> None:
    expected = r"^mine: the settings \{'depth': 3\} do not fit \(.*'depth'\)$"
    with pytest.raises(ValueError, match=expected):
        build(Detr(tiny).state_dict(), Profile("mine", "detr", settings={"depth": 3}), "mine.pth")


@pytest.mark.parametrize(("width", "feedforward", "layers", "queries", "columns"), [(64, 24, (1, 3), 7, 3)])
def test_sizes_are_read_from_the_tensors(
    width: int, feedforward: int, layers: tuple[int, int], queries: int, columns: int, tiny: Sizes
) -> None:
    sizes = replace(
        tiny,
        width=width,
        feedforward=feedforward,
        encoder_layers=layers[0],
        decoder_layers=layers[1],
        queries=queries,
        columns=columns,
    )
    assert Sizes.read(Detr(sizes).state_dict()) == Sizes.read(ConditionalDetr(sizes).state_dict()) == sizes
