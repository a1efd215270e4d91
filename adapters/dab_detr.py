"""DAB-DETR (arXiv 2201.12329): queries are anchor boxes that every decoder layer moves a little.

Names of modules are the names in the authors' checkpoints, so a state dict loads without translation.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from refinebox.adapters.backbone import Norm, ResNet, ResNetSizes
from refinebox.adapters.position import anchor_embedding, padding_mask, position_embedding
from refinebox.adapters.transformer import MLP, ConditionalDecoderLayer, EncoderLayer, Memory
from torch import Tensor, nn
from torchvision.ops import FrozenBatchNorm2d

from refinebox.boxes import inverse_sigmoid
from refinebox.detector import Detector, DetectorOutput, Profile, load_tensors

BODY = "backbone.0.body."


@dataclass(frozen=True)
class Sizes:
    """Everything about a DAB-DETR that its tensors tell; ``patterns`` is 0 where there are none."""

    backbone: ResNetSizes
    width: int
    feedforward: int
    encoder_layers: int
    decoder_layers: int
    queries: int
    classes: int
    patterns: int

    @classmethod
    def read(cls, state: Mapping[str, Tensor]) -> "Sizes":
        """The sizes of the network that ``state``, in the authors' layout, belongs to.

        Raises:
            KeyError: a tensor that every DAB-DETR has is missing.
        """
        patterns = state.get("transformer.patterns.weight")
        return cls(
            backbone=ResNetSizes.read(state, BODY),
            width=state["input_proj.weight"].shape[0],
            feedforward=state["transformer.encoder.layers.0.linear1.weight"].shape[0],
            encoder_layers=sum(_is_layer(key, "encoder") for key in state),
            decoder_layers=sum(_is_layer(key, "decoder") for key in state),
            queries=state["refpoint_embed.weight"].shape[0],
            classes=state["class_embed.weight"].shape[0],
            patterns=0 if patterns is None else patterns.shape[0],
        )


class DabDetr(nn.Module):
    """The network. Trainable; :class:`DabDetrDetector` freezes it.

    Args:
        sizes: what the tensors tell.
        heads: attention heads, 8 in every published model.
        temperature: of the image position embedding; 20, but 10 for DAB-DETR-R50-DC5.
        dilation: stride 16 instead of 32 in the last stage (DC5).
        norm: batch normalisation of the backbone.
    """

    def __init__(
        self,
        sizes: Sizes,
        *,
        heads: int = 8,
        temperature: float = 20.0,
        dilation: bool = False,
        norm: Norm = FrozenBatchNorm2d,
    ) -> None:
        super().__init__()
        self.temperature = temperature
        self.backbone = nn.ModuleList([Backbone(ResNet(sizes.backbone, dilation=dilation, norm=norm))])
        self.input_proj = nn.Conv2d(sizes.backbone.channels[-1], sizes.width, 1)
        self.transformer = Transformer(sizes, heads)
        self.refpoint_embed = nn.Embedding(sizes.queries, 4)
        self.class_embed = nn.Linear(sizes.width, sizes.classes)
        self.bbox_embed = MLP(sizes.width, sizes.width, 4, depth=3)

    def forward(self, images: Tensor, sizes: Tensor) -> DetectorOutput:
        """Features, boxes and logits of the last decoder layer; see :class:`refinebox.detector.DetectorOutput`."""
        features, memory = self.encode(images, sizes)
        content, anchors = self.queries(len(images))
        hidden, reference = self.decode(memory, content, anchors)[-1]
        logits, boxes = self.heads(hidden, reference)
        return DetectorOutput(features, boxes, logits)

    def encode(self, images: Tensor, sizes: Tensor) -> tuple[tuple[Tensor, ...], Memory]:
        """Backbone features C2..C5 and the encoder's memory; arguments as for :meth:`forward`."""
        features: tuple[Tensor, ...] = self.backbone[0](images)
        projected = self.input_proj(features[-1])  # [B, C, h, w]
        height, width = projected.shape[-2:]
        mask = padding_mask(sizes, (images.shape[-2], images.shape[-1]), (height, width))
        position = position_embedding(mask, projected.shape[1], self.temperature)
        valid = ~mask.flatten(1)[:, None, None, :]  # [B, 1, 1, L]
        memory = self.transformer.encoder(
            projected.flatten(2).transpose(1, 2), position.flatten(2).transpose(1, 2), valid
        )
        return features, memory

    def queries(self, batch: int) -> tuple[Tensor, Tensor]:
        """Contents ``[batch, N, C]`` and anchors ``[batch, N, 4]`` that the decoder starts from.

        N is the number of queries, times the patterns where there are any (pattern-major). Anchors are cxcywh,
        fractions of the unpadded image.
        """
        anchors = self.refpoint_embed.weight.sigmoid()  # [Q, 4]
        patterns = self.transformer.patterns
        if patterns is None:
            content = anchors.new_zeros(len(anchors), self.class_embed.in_features)
        else:
            content = patterns.weight.repeat_interleave(len(anchors), dim=0)  # [P * Q, C]
            anchors = anchors.repeat(patterns.num_embeddings, 1)
        return content.expand(batch, -1, -1), anchors.expand(batch, -1, -1)

    def decode(
        self, memory: Memory, content: Tensor, anchors: Tensor, query_mask: Tensor | None = None
    ) -> list[tuple[Tensor, Tensor]]:
        """For each layer, its normalised output ``[B, N, C]`` and the anchors ``[B, N, 4]`` that entered it.

        Gradients do not flow from one layer's anchors to the layer before, as in the paper.
        """
        layers: list[tuple[Tensor, Tensor]] = self.transformer.decoder(
            memory, content, anchors, self.bbox_embed, query_mask
        )
        return layers

    def heads(self, hidden: Tensor, reference: Tensor) -> tuple[Tensor, Tensor]:
        """Logits ``[B, N, K]`` and boxes ``[B, N, 4]`` (cxcywh, fractions of the unpadded image) of one layer."""
        boxes = (self.bbox_embed(hidden) + inverse_sigmoid(reference)).sigmoid()
        return self.class_embed(hidden), boxes


class Backbone(nn.Module):
    """One level of nesting that the authors' key names carry."""

    def __init__(self, body: ResNet) -> None:
        super().__init__()
        self.body = body

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        features: tuple[Tensor, ...] = self.body(images)
        return features


class Transformer(nn.Module):
    """Encoder, decoder and, in the "3pat" models, the learned content patterns."""

    def __init__(self, sizes: Sizes, heads: int) -> None:
        super().__init__()
        self.encoder = Encoder(sizes, heads)
        self.decoder = Decoder(sizes, heads)
        self.patterns = nn.Embedding(sizes.patterns, sizes.width) if sizes.patterns else None


class Encoder(nn.Module):
    """Encoder whose positions are rescaled from the content before every layer."""

    def __init__(self, sizes: Sizes, heads: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            EncoderLayer(sizes.width, heads, sizes.feedforward, nn.PReLU()) for _ in range(sizes.encoder_layers)
        )
        self.query_scale = MLP(sizes.width, sizes.width, sizes.width, depth=2)

    def forward(self, tokens: Tensor, position: Tensor, valid: Tensor) -> Memory:
        for layer in self.layers:
            tokens = layer(tokens, position * self.query_scale(tokens), valid)
        return Memory(tokens, position, valid)


class Decoder(nn.Module):
    """Layer-by-layer anchor refinement with width- and height-modulated attention (sections 4.2 to 4.4)."""

    def __init__(self, sizes: Sizes, heads: int) -> None:
        super().__init__()
        width = sizes.width
        self.layers = nn.ModuleList(
            ConditionalDecoderLayer(width, heads, sizes.feedforward, nn.PReLU(), first=index == 0)
            for index in range(sizes.decoder_layers)
        )
        self.norm = nn.LayerNorm(width)
        self.query_scale = MLP(width, width, width, depth=2)
        self.ref_point_head = MLP(2 * width, width, width, depth=2)
        self.ref_anchor_head = MLP(width, width, 2, depth=2)

    def forward(
        self, memory: Memory, content: Tensor, anchors: Tensor, box_head: nn.Module, query_mask: Tensor | None
    ) -> list[tuple[Tensor, Tensor]]:
        width = content.shape[-1]
        layers = []
        for index, layer in enumerate(self.layers):
            embedding = anchor_embedding(anchors, width)  # [B, N, 2C]
            query_sine = embedding[..., :width]  # the cy and cx parts
            if index > 0:
                query_sine = query_sine * self.query_scale(content)
            query_sine = query_sine * self._modulation(content, anchors)
            content = layer(content, self.ref_point_head(embedding), query_sine, memory, query_mask)
            layers.append((self.norm(content), anchors))
            # anchors move by the raw output, predictions are made from the normalised one
            anchors = (box_head(content) + inverse_sigmoid(anchors)).sigmoid().detach()
        return layers

    def _modulation(self, content: Tensor, anchors: Tensor) -> Tensor:
        """``[B, N, C]`` factors: reference over anchor height for the cy half, the same of widths for the cx half."""
        reference = self.ref_anchor_head(content).sigmoid()  # [B, N, 2] width, height
        ratio = reference / anchors[..., 2:]
        half = content.shape[-1] // 2
        return torch.cat(
            [ratio[..., 1:].expand(*ratio.shape[:-1], half), ratio[..., :1].expand(*ratio.shape[:-1], half)], -1
        )


class DabDetrDetector(Detector):
    """A frozen DAB-DETR."""

    def __init__(self, network: DabDetr, profile: Profile) -> None:
        super().__init__(profile)
        self.network = network
        self.freeze()

    def detect(self, images: Tensor, sizes: Tensor) -> DetectorOutput:
        output: DetectorOutput = self.network(images, sizes)
        return output


def build(state: Mapping[str, Tensor], profile: Profile) -> Detector:
    """The frozen detector for a state dict in the authors' layout.

    Raises:
        ValueError: tensors are missing, left over or of the wrong shape; the message names them.
    """
    # the box head is stored twice under two names, and batch counters carry no weight
    state = {
        key: value
        for key, value in state.items()
        if not key.startswith("transformer.decoder.bbox_embed.") and not key.endswith("num_batches_tracked")
    }
    try:
        sizes = Sizes.read(state)
    except KeyError as error:
        raise ValueError(f"{profile.name}: the checkpoint has no tensor {error}; is it complete?") from error
    network = DabDetr(sizes, **profile.settings)
    load_tensors(network, state, profile.name)
    return DabDetrDetector(network, profile)


def _is_layer(key: str, part: str) -> bool:
    return key.startswith(f"transformer.{part}.layers.") and key.endswith(".linear1.weight")
