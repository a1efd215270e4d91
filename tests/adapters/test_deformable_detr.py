"""Deformable DETR against transformers' model with the same weights, all three variants."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from refinebox.data.input_format import pad
from refinebox.detection.zoo import load_detector

transformers = pytest.importorskip("transformers", reason="transformers is what these checkpoints are compared with")
transformers.utils.logging.disable_progress_bar()

VARIANTS = {
    "plain": {},
    "refine": {"with_box_refine": True},
    "two-stage": {"with_box_refine": True, "two_stage": True, "two_stage_num_proposals": 40},
}


def build(**options: Any) -> Any:
    """A small model with random tensors throughout, so that none can be mistaken for another."""
    torch.manual_seed(0)
    backbone = transformers.ResNetConfig(
        embedding_size=8,
        hidden_sizes=[16, 16, 24, 32],
        depths=[1, 2, 1, 1],
        out_features=["stage2", "stage3", "stage4"],
    )
    config = transformers.DeformableDetrConfig(
        backbone_config=backbone,
        use_timm_backbone=False,
        use_pretrained_backbone=False,
        backbone=None,
        d_model=64,
        encoder_layers=2,
        decoder_layers=3,
        encoder_ffn_dim=40,
        decoder_ffn_dim=40,
        encoder_attention_heads=4,
        decoder_attention_heads=4,
        num_queries=20,
        num_labels=7,
        **options,
    )
    model = transformers.DeformableDetrForObjectDetection(config)
    for name, tensor in model.state_dict().items():
        if tensor.is_floating_point():
            randomise(name, tensor)
    return model.eval()


def randomise(name: str, tensor: torch.Tensor) -> None:
    """Queries look at different places, so that a mistake shows in the numbers."""
    if name.endswith("running_var"):
        nn.init.uniform_(tensor, 0.5, 1.5)
    elif tensor.dim() == 1:
        nn.init.uniform_(tensor, 0.6, 1.4) if name.endswith("weight") else nn.init.normal_(tensor, std=0.3)
    elif "embed.weight" in name or "level_embed" in name or "position_embeddings" in name:
        nn.init.normal_(tensor)
    else:
        nn.init.normal_(tensor, std=1.0 / math.sqrt(tensor[0].numel()))


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_folder_gives_the_same_numbers(variant: str, tmp_path: Path) -> None:
    model = build(**VARIANTS[variant])
    model.save_pretrained(tmp_path)
    detector = load_detector(str(tmp_path))
    assert detector.profile.layout == "transformers"
    assert detector.profile.final.limit == 100
    network = detector.get_submodule("network")
    assert network.variant == variant
    generator = torch.Generator().manual_seed(1)
    images, sizes = pad([torch.randn(3, *side, generator=generator) for side in ((96, 133), (128, 90))])
    inside = torch.zeros(images.shape[0], *images.shape[2:], dtype=torch.long)
    for mask, (height, width) in zip(inside, sizes.tolist(), strict=True):
        mask[:height, :width] = 1
    with torch.no_grad():
        wanted = model(pixel_values=images, pixel_mask=inside)
    found = detector(images, sizes)
    assert found.boxes.shape[1] == (40 if variant == "two-stage" else 20)
    torch.testing.assert_close(found.logits, wanted.logits, atol=5e-4, rtol=0)
    torch.testing.assert_close(found.boxes, wanted.pred_boxes, atol=3e-5, rtol=0)
    assert wanted.logits.std(1).min() > 0.01  # queries that all say the same would hide mistakes
