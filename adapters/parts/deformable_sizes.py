"""What the tensors of a deformable DETR tell about its network."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from refinebox.adapters.parts.backbone import ResNetSizes
from refinebox.adapters.parts.sizes import layers_of, read_backbone
from refinebox.adapters.parts.swin import SwinSizes
from torch import Tensor

QUERIES = ("query_embed.weight", "transformer.tgt_embed.weight", "transformer.query_embed.weight")


@dataclass(frozen=True)
class DeformableSizes:
    """Everything about a network that its tensors tell.

    Attributes:
        backbone: of the ResNet or Swin Transformer.
        projected: how many backbone maps, the coarsest ones, are levels; further levels are made from the coarsest.
        levels: feature levels.
        bias: the projections onto the levels have one.
        width: channels of the transformer.
        feedforward: hidden channels of its feed-forward blocks.
        encoder_layers, decoder_layers: how many.
        samples: sampling points of all heads and levels together.
        queries: rows of the learned queries; 0 where there are none.
        columns: of the class head.
        two_stage: queries are chosen among the encoder's tokens.
        shared: all layers share one class and one box head, so boxes are not refined from layer to layer.
    """

    backbone: ResNetSizes | SwinSizes
    projected: int
    levels: int
    bias: bool
    width: int
    feedforward: int
    encoder_layers: int
    decoder_layers: int
    samples: int
    queries: int
    columns: int
    two_stage: bool
    shared: bool

    @property
    def heads(self) -> int:
        """Class and box heads: one a decoder layer, and one for the encoder's tokens where queries are chosen there."""
        return self.decoder_layers + self.two_stage

    @classmethod
    def read(cls, state: Mapping[str, Tensor]) -> "DeformableSizes":
        """The sizes of the network that ``state``, in the authors' layout, belongs to.

        Raises:
            KeyError: a tensor that every such network has is missing.
        """
        projections = [key for key in state if key.startswith("input_proj.") and key.endswith(".0.weight")]
        queries = [state[key] for key in QUERIES if key in state]
        width = state["input_proj.0.0.weight"].shape[0]
        return cls(
            backbone=read_backbone(state),
            projected=sum(state[key].shape[-1] == 1 for key in projections),
            levels=state["transformer.level_embed"].shape[0],
            bias="input_proj.0.0.bias" in state,
            width=width,
            feedforward=state["transformer.encoder.layers.0.linear1.weight"].shape[0],
            encoder_layers=layers_of(state, "encoder"),
            decoder_layers=layers_of(state, "decoder"),
            samples=state["transformer.encoder.layers.0.self_attn.attention_weights.weight"].shape[0],
            queries=queries[0].shape[0] if queries else 0,
            columns=state["class_embed.0.weight"].shape[0],
            two_stage="transformer.enc_output.weight" in state,
            shared=_same(state, "class_embed.{}.weight") and _same(state, "bbox_embed.{}.layers.0.weight"),
        )


def _same(state: Mapping[str, Tensor], name: str) -> bool:
    """Whether the heads of the first two layers are one, which codes that share it write twice."""
    first, second = state[name.format(0)], state.get(name.format(1))
    return second is not None and torch.equal(first, second)
