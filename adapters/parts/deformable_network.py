"""What the deformable families share: backbone, levels, encoder and heads; and how a network is frozen."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from refinebox.adapters.parts import levels, proposals, square
from refinebox.adapters.parts.backbone import Norm
from refinebox.adapters.parts.deformable_attention import MultiLevelMemory
from refinebox.adapters.parts.deformable_sizes import DeformableSizes
from refinebox.adapters.parts.deformable_transformer import DeformableDecoderLayer, DeformableEncoder
from refinebox.adapters.parts.network import Backbone, FrozenNetwork, frozen
from refinebox.adapters.parts.transformer import MLP
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.ops import FrozenBatchNorm2d, clip_boxes_to_image

from refinebox.boxes import inverse_sigmoid
from refinebox.detection.detector import Detector
from refinebox.detection.output import Detections, DetectorOutput
from refinebox.detection.profile import Profile


class DeformableNetwork(nn.Module):
    """A deformable DETR up to the encoder's memory, and its heads. A family implements :meth:`predict`.

    ``variant`` tells apart what one family has several of; empty where there is but one.

    Args:
        sizes: what the tensors tell.
        queries: how many tokens become queries in models whose tensors do not tell.
        heads: attention heads, 8 in every published model.
        temperature, offset: of the image position embedding.
        epsilon: of the inverse sigmoid of boxes that one decoder layer hands to the next,
        output_epsilon: and of those that predictions start from.
        square: side of the grey square that images lie on in models trained with large-scale jitter; None otherwise.
        dilation: stride 16 instead of 32 in the last stage (DC5).
        norm: batch normalisation of the backbone.
    """

    variant = ""
    transformer: Any

    def __init__(
        self,
        sizes: DeformableSizes,
        *,
        queries: int = 300,
        heads: int = 8,
        temperature: float,
        offset: float,
        epsilon: float,
        output_epsilon: float,
        square: int | None = None,
        dilation: bool = False,
        norm: Norm = FrozenBatchNorm2d,
    ) -> None:
        super().__init__()
        if sizes.width % heads or sizes.samples % (heads * sizes.levels):
            raise ValueError(
                f"{sizes.width} channels and {sizes.samples} sampling points on {sizes.levels} levels cannot be shared "
                f"among {heads} heads; check the number of heads"
            )
        self.temperature, self.offset = temperature, offset
        self.epsilon, self.output_epsilon = epsilon, output_epsilon
        self.square, self.projected, self.layers = square, sizes.projected, sizes.decoder_layers
        self.count = sizes.queries or queries
        self.backbone = nn.ModuleList([Backbone(sizes.backbone.build(dilation, norm))])
        self.input_proj = levels.projections(sizes)
        self.transformer = DeformableTransformer(sizes, heads)
        self.class_embed = nn.ModuleList(nn.Linear(sizes.width, sizes.columns) for _ in range(sizes.heads))
        self.bbox_embed = nn.ModuleList(MLP(sizes.width, sizes.width, 4, depth=3) for _ in range(sizes.heads))

    def predict(self, images: Tensor, sizes: Tensor) -> DetectorOutput:
        """The output of the last decoder layer, for arguments as of a detector's ``forward``."""
        raise NotImplementedError

    def forward(self, images: Tensor, sizes: Tensor) -> DetectorOutput:
        if self.square is None:
            return self.predict(images, sizes)
        canvas, squares = square.on_square(images, sizes, self.square)
        return square.off_square(self.predict(canvas, squares), sizes, squares, image_size(images))

    def features(self, images: Tensor, sizes: Tensor) -> tuple[Tensor, ...]:
        """C2..C5 alone."""
        if self.square is None:
            maps: tuple[Tensor, ...] = self.backbone[0](images)
            return maps
        canvas, _ = square.on_square(images, sizes, self.square)
        return square.cropped(self.backbone[0](canvas), image_size(images), canvas.shape[-1])

    def encode(self, images: Tensor, sizes: Tensor) -> tuple[tuple[Tensor, ...], MultiLevelMemory]:
        """Backbone features C2..C5 and the encoder's memory."""
        features: tuple[Tensor, ...] = self.backbone[0](images)
        maps = levels.project(self.input_proj, self.projected, features)
        memory, position = levels.flatten(maps, sizes, image_size(images), self.temperature, self.offset)
        level = torch.cat(
            [
                embedding.expand(height * width, -1)
                for embedding, (height, width) in zip(self.transformer.level_embed, memory.shapes, strict=True)
            ]
        )  # [L, C]
        encoded: MultiLevelMemory = self.transformer.encoder(memory, position + level)
        return features, encoded

    def proposed(self, memory: MultiLevelMemory) -> tuple[Tensor, Tensor]:
        """Logits ``[B, L, K]`` of every token of a two-stage model, and the logits of its box ``[B, L, 4]``."""
        anchors, inside = proposals.anchors(memory)
        tokens = memory.tokens * inside[..., None]
        tokens = self.transformer.enc_output_norm(self.transformer.enc_output(tokens))
        return self.class_embed[-1](tokens), self.bbox_embed[-1](tokens) + anchors

    def heads(self, layer: int, hidden: Tensor, reference: Tensor) -> tuple[Tensor, Tensor]:
        """Logits ``[B, N, K]`` and boxes ``[B, N, 4]`` (cxcywh, fractions of the unpadded image) of a decoder layer."""
        boxes = moved(self.bbox_embed[layer](hidden), reference, self.output_epsilon)
        return self.class_embed[layer](hidden), boxes


class DeformableTransformer(nn.Module):
    """Level embeddings, encoder and decoder; families add what else their checkpoints keep here."""

    def __init__(self, sizes: DeformableSizes, heads: int) -> None:
        super().__init__()
        self.level_embed = nn.Parameter(torch.zeros(sizes.levels, sizes.width))
        self.encoder = DeformableEncoder(sizes, heads)
        self.decoder = nn.Module()
        self.decoder.layers = nn.ModuleList(DeformableDecoderLayer(sizes, heads) for _ in range(sizes.decoder_layers))
        if sizes.two_stage:
            self.enc_output = nn.Linear(sizes.width, sizes.width)
            self.enc_output_norm = nn.LayerNorm(sizes.width)


class FrozenDeformable(FrozenNetwork):
    """The frozen detector around a deformable network.

    mmdetection cuts boxes at the borders of what the network saw: of the image, or of the square that it lies on.
    """

    def __init__(self, network: DeformableNetwork, profile: Profile) -> None:
        side, network.square = network.square, None  # the small image that is measured with needs no large square
        super().__init__(network, profile)
        network.square = side
        self.candidates = network.count  # of which the small image may not have so many

    def extract(self, images: Tensor, sizes: Tensor) -> tuple[Tensor, ...]:
        maps: tuple[Tensor, ...] = self.network.features(images, sizes)
        return maps

    def finish(self, detections: Detections, size: tuple[int, int]) -> Detections:
        if not self.profile.layout.startswith("mmdet"):
            return super().finish(detections, size)
        side = self.network.square
        limit = size if side is None else square.limits(size, side)
        return replace(detections, boxes=clip_boxes_to_image(detections.boxes, limit))


def moved(moves: Tensor, reference: Tensor, epsilon: float) -> Tensor:
    """``[..., 4]`` boxes: what a box head gives, from a box on or, where there is only a point, from its centre on."""
    start = inverse_sigmoid(reference, epsilon)
    return (moves + F.pad(start, (0, 4 - start.shape[-1]))).sigmoid()


def on_levels(reference: Tensor, memory: MultiLevelMemory) -> Tensor:
    """``[B, N, levels, 2 or 4]`` points or boxes ``[B, N, 2 or 4]`` as fractions of each padded level."""
    ratios = memory.valid_ratios.repeat(1, 1, reference.shape[-1] // 2)  # [B, levels, 2 or 4]
    return reference[:, :, None] * ratios[:, None]


def image_size(images: Tensor) -> tuple[int, int]:
    """(H, W) of a batch."""
    return images.shape[-2], images.shape[-1]


def frozen_deformable(
    family: type[DeformableNetwork],
    state: Mapping[str, Tensor],
    profile: Profile,
    constants: Mapping[str, Any],
    detector: type[FrozenDeformable] = FrozenDeformable,
) -> Detector:
    """The frozen detector of a family for a state dict in the authors' layout.

    Args:
        family: the network's class.
        state: the tensors.
        profile: its settings go before ``constants``; ``levels`` and ``variant`` among them say what the checkpoint
            must be of.
        constants: what the tensors cannot tell, as keyword arguments of ``family``.
        detector: the class around the network.

    Raises:
        ValueError: the checkpoint has another number of levels or is of another variant, or as ``frozen``.
    """
    settings = {**constants, **profile.settings}
    levels_wanted, wanted = (settings.pop(name, None) for name in ("levels", "variant"))
    found = len(state.get("transformer.level_embed", ()))
    if levels_wanted not in (None, found):
        raise ValueError(
            f"{profile.name} has {levels_wanted} feature levels, but the checkpoint has {found}; name a detector of as "
            "many"
        )
    built: Any = frozen(
        family, state, replace(profile, settings=settings), read=DeformableSizes.read, detector=detector
    )
    variant = built.network.variant
    if wanted not in (None, variant):
        raise ValueError(f"{profile.name} is {wanted}, but the checkpoint is {variant}; name a detector of that kind")
    detected: Detector = built
    return detected
