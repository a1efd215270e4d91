"""Deformable attention against the implementation of transformers."""

from typing import Any

import pytest
import torch
from refinebox.adapters.parts.deformable_attention import DeformableAttention, MultiLevelMemory, sample
from torch import Tensor
from torch.nn import functional as F

SHAPES = ((9, 13), (5, 7), (3, 4))
CELLS = sum(height * width for height, width in SHAPES)


def by_grid_sample(value: Tensor, places: Tensor, weights: Tensor) -> Tensor:
    """The same by torch's own sampling, one head and level after the other."""
    batch, queries, heads = places.shape[:3]
    starts, total = 0, torch.zeros(batch, queries, heads, value.shape[-1] // heads)
    for level, (height, width) in enumerate(SHAPES):
        maps = value[:, starts : starts + height * width].unflatten(-1, (heads, -1)).permute(0, 2, 3, 1)
        starts += height * width
        grid = (places[:, :, :, level] + 0.5) / torch.tensor([width, height]) * 2 - 1  # [B, N, heads, points, 2]
        found = F.grid_sample(
            maps.flatten(0, 1).unflatten(-1, (height, width)), grid.transpose(1, 2).flatten(0, 1), align_corners=False
        )  # [B * heads, C, N, points]
        found = found.unflatten(0, (batch, heads)).permute(0, 3, 1, 4, 2)
        total += (found * weights[:, :, :, level, :, None]).sum(3)
    return total.flatten(2)


def test_sampling_equals_torchs_own() -> None:
    """Inside, at the borders and outside of every level."""
    torch.manual_seed(0)
    value = torch.randn(2, CELLS, 32)
    places = torch.rand(2, 11, 4, 3, 5, 2) * 20 - 4
    places[0, 0] = torch.tensor([-1.0, 0.0])
    places[0, 1] = torch.tensor([12.0, 8.0])
    places[0, 2] = torch.tensor([1e6, -1e6])
    weights = torch.rand(2, 11, 4, 3, 5)
    torch.testing.assert_close(sample(value, SHAPES, places, weights), by_grid_sample(value, places, weights))


def test_gradients_equal_torchs_own() -> None:
    """A deformable detector can be trained with it."""
    torch.manual_seed(0)
    inputs = [torch.randn(1, CELLS, 16), torch.rand(1, 6, 2, 3, 4, 2) * 8, torch.rand(1, 6, 2, 3, 4)]
    gradients = []
    for function in (lambda *arguments: sample(arguments[0], SHAPES, *arguments[1:]), by_grid_sample):
        leaves = [tensor.clone().requires_grad_() for tensor in inputs]
        function(*leaves).square().sum().backward()
        gradients.append([leaf.grad for leaf in leaves])
    for ours, wanted in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, wanted, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("parts", [2, 4], ids=["points", "boxes"])
def test_the_attention_equals_that_of_transformers(parts: int) -> None:
    transformers = pytest.importorskip("transformers", reason="transformers is what this is compared with")
    from transformers.models.deformable_detr.modeling_deformable_detr import DeformableDetrMultiscaleDeformableAttention

    torch.manual_seed(0)
    config = transformers.DeformableDetrConfig(d_model=32, num_feature_levels=3)
    theirs: Any = DeformableDetrMultiscaleDeformableAttention(config, num_heads=4, n_points=5)
    for parameter in theirs.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    ours = DeformableAttention(32, 4, 3, 5)
    ours.load_state_dict(theirs.state_dict())
    tokens, query, reference = torch.randn(2, CELLS, 32), torch.randn(2, 6, 32), torch.rand(2, 6, 3, parts)
    padding = torch.zeros(2, CELLS, dtype=torch.bool)
    padding[1, 100:117] = True
    shapes = torch.tensor(SHAPES)
    with torch.no_grad():
        wanted, _ = theirs(
            query,
            attention_mask=~padding,
            encoder_hidden_states=tokens,
            reference_points=reference,
            spatial_shapes=shapes,
            spatial_shapes_list=list(SHAPES),
            level_start_index=torch.cat([shapes.new_zeros(1), shapes.prod(1).cumsum(0)[:-1]]),
        )
        memory = MultiLevelMemory(tokens, padding, torch.zeros(2, 3, 2), SHAPES)
        found = ours(query, reference, memory)
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-5)
