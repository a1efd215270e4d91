"""What the tensors of a DETR-like checkpoint tell about its network."""

from collections.abc import Mapping
from dataclasses import dataclass

from refinebox.adapters.parts.backbone import ResNetSizes
from refinebox.adapters.parts.swin import SwinSizes
from torch import Tensor

BODY = "backbone.0.body."


@dataclass(frozen=True)
class Sizes:
    """Everything about a network that its tensors tell.

    Attributes:
        backbone: of the ResNet or Swin Transformer.
        width: channels of the transformer.
        feedforward: hidden channels of its feed-forward blocks.
        encoder_layers, decoder_layers: how many.
        queries: learned queries; with patterns each is used once for each of them.
        columns: of the class head, no-object included where there is one.
        patterns: learned content patterns; 0 where there are none.
        pre_norm: whether layers normalise before each part rather than after it, as in Table Transformer.
    """

    backbone: ResNetSizes | SwinSizes
    width: int
    feedforward: int
    encoder_layers: int
    decoder_layers: int
    queries: int
    columns: int
    patterns: int = 0
    pre_norm: bool = False

    @classmethod
    def read(cls, state: Mapping[str, Tensor]) -> "Sizes":
        """The sizes of the network that ``state``, in the authors' layout, belongs to.

        Raises:
            KeyError: a tensor that every such network has is missing.
        """
        patterns = state.get("transformer.patterns.weight")
        return cls(
            backbone=read_backbone(state),
            width=state["input_proj.weight"].shape[0],
            feedforward=state["transformer.encoder.layers.0.linear1.weight"].shape[0],
            encoder_layers=layers_of(state, "encoder"),
            decoder_layers=layers_of(state, "decoder"),
            queries=state["refpoint_embed.weight" if "refpoint_embed.weight" in state else "query_embed.weight"].shape[
                0
            ],
            columns=state["class_embed.weight"].shape[0],
            patterns=0 if patterns is None else patterns.shape[0],
            pre_norm="transformer.encoder.norm.weight" in state,
        )


def read_backbone(state: Mapping[str, Tensor]) -> ResNetSizes | SwinSizes:
    """The sizes of the backbone; raises KeyError where a tensor that every such backbone has is missing."""
    swin = f"{BODY}patch_embed.proj.weight" in state
    return SwinSizes.read(state, BODY) if swin else ResNetSizes.read(state, BODY)


def layers_of(state: Mapping[str, Tensor], part: str) -> int:
    """How many layers the ``encoder`` or ``decoder`` has."""
    return sum(key.startswith(f"transformer.{part}.layers.") and key.endswith(".linear1.weight") for key in state)
