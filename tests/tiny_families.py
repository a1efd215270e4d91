"""A tiny detector of every native family, with random weights."""

import importlib
from dataclasses import replace

import torch
from refinebox.adapters.parts.backbone import ResNetSizes
from refinebox.adapters.parts.deformable_sizes import DeformableSizes
from refinebox.adapters.parts.sizes import Sizes

from refinebox.data.input_format import InputFormat
from refinebox.detection.detector import Detector
from refinebox.detection.profile import Profile

BACKBONE = ResNetSizes(bottleneck=True, stem=8, depths=(1, 1, 1, 1), inner=(4, 4, 8, 8), channels=(16, 16, 24, 32))
SIZES = Sizes(BACKBONE, width=32, feedforward=32, encoder_layers=1, decoder_layers=2, queries=12, columns=6)
DEFORMABLE = DeformableSizes(
    BACKBONE,
    projected=2,
    levels=3,
    bias=True,
    width=64,
    feedforward=32,
    encoder_layers=1,
    decoder_layers=1,
    samples=8 * 3 * 2,
    queries=12,
    columns=6,
    two_stage=False,
    shared=False,
)
NETWORKS = {
    "detr": ("Detr", SIZES),
    "conditional_detr": ("ConditionalDetr", SIZES),
    "dab_detr": ("DabDetr", SIZES),
    "dn_detr": ("DnDetr", SIZES),
    "deformable_detr": ("DeformableDetr", DEFORMABLE),
    "dino": ("Dino", replace(DEFORMABLE, two_stage=True)),
    "ddq": ("Ddq", replace(DEFORMABLE, two_stage=True, queries=0)),
}
CONSTANTS = {"temperature": 10000.0, "offset": 0.0, "epsilon": 1e-3, "output_epsilon": 1e-3}


def build(family: str) -> Detector:
    """The frozen detector; the same weights every time."""
    torch.manual_seed(0)
    adapter = importlib.import_module(f"refinebox.adapters.{family}")
    name, sizes = NETWORKS[family]
    options = CONSTANTS if isinstance(sizes, DeformableSizes) else {}
    network = getattr(adapter, name)(sizes, **options)
    for parameter in network.parameters():
        if parameter.dim() > 1:
            torch.nn.init.xavier_uniform_(parameter)
    profile = Profile(f"tiny-{family}", family, input=InputFormat(short_side=64, long_side=128))
    detector: Detector = adapter.build(network.state_dict(), profile)
    return detector
