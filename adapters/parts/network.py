"""What every family shares: backbone, projection, position embedding and encoder; and how a network is frozen.

Names of modules are the names in the authors' checkpoints, so a state dict in their layout loads as it is.
"""

from collections.abc import Callable, Mapping
from typing import Any

from refinebox.adapters.parts.backbone import Norm
from refinebox.adapters.parts.position import padding_mask, position_embedding
from refinebox.adapters.parts.sizes import Sizes
from refinebox.adapters.parts.transformer import MLP, EncoderLayer, Memory
from torch import Tensor, nn
from torchvision.ops import FrozenBatchNorm2d

from refinebox.detection.detector import Detector
from refinebox.detection.output import DetectorOutput
from refinebox.detection.profile import Profile
from refinebox.detection.tensors import load_tensors


class Network(nn.Module):
    """A DETR-like network up to the encoder's memory, and its two heads. Trainable; :func:`frozen` freezes it.

    A family sets ``transformer`` and implements ``forward(images, sizes)``, which returns the output of the last
    decoder layer as a :class:`refinebox.detection.detector.DetectorOutput`.

    Args:
        sizes: what the tensors tell.
        heads: attention heads, 8 in every published model.
        temperature: of the image position embedding.
        dilation: stride 16 instead of 32 in the last stage (DC5).
        norm: batch normalisation of the backbone.

    Raises:
        ValueError: the width is no multiple of the heads, or the backbone cannot be dilated.
    """

    transformer: Any

    def __init__(
        self, sizes: Sizes, *, heads: int, temperature: float, dilation: bool = False, norm: Norm = FrozenBatchNorm2d
    ) -> None:
        super().__init__()
        if sizes.width % heads:
            raise ValueError(f"{sizes.width} channels cannot be shared among {heads} heads; check the number of heads")
        self.temperature = temperature
        self.backbone = nn.ModuleList([Backbone(sizes.backbone.build(dilation, norm))])
        self.input_proj = nn.Conv2d(sizes.backbone.channels[-1], sizes.width, 1)
        self.class_embed = nn.Linear(sizes.width, sizes.columns)
        self.bbox_embed = MLP(sizes.width, sizes.width, 4, depth=3)

    def encode(self, images: Tensor, sizes: Tensor) -> tuple[tuple[Tensor, ...], Memory]:
        """Backbone features C2..C5 and the encoder's memory, for arguments as of a detector's ``forward``."""
        features: tuple[Tensor, ...] = self.backbone[0](images)
        projected = self.input_proj(features[-1])  # [B, C, h, w]
        height, width = projected.shape[-2:]
        mask = padding_mask(sizes, (images.shape[-2], images.shape[-1]), (height, width))
        position = position_embedding(mask, projected.shape[1], self.temperature)
        valid = ~mask.flatten(1)[:, None, None, :]  # [B, 1, 1, L]
        memory: Memory = self.transformer.encoder(
            projected.flatten(2).transpose(1, 2), position.flatten(2).transpose(1, 2), valid
        )
        return features, memory


class Backbone(nn.Module):
    """One level of nesting that the authors' key names carry."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        features: tuple[Tensor, ...] = self.body(images)
        return features


class Transformer(nn.Module):
    """Encoder and decoder, and the learned content patterns of those models that have some."""

    def __init__(self, encoder: nn.Module, decoder: nn.Module, patterns: nn.Embedding | None = None) -> None:
        super().__init__()
        self.encoder, self.decoder, self.patterns = encoder, decoder, patterns


class Encoder(nn.Module):
    """Layers without a normalisation after the last (DETR, appendix A.3), unless they normalise before each part.

    Args:
        sizes: what the tensors tell.
        heads: attention heads.
        activation: of the feed-forward blocks.
        rescale: whether positions are rescaled from the content before every layer, as in DAB-DETR.
        pre_norm: whether layers normalise before each part.
    """

    def __init__(
        self,
        sizes: Sizes,
        heads: int,
        activation: type[nn.Module] = nn.ReLU,
        *,
        rescale: bool = False,
        pre_norm: bool = False,
    ) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            EncoderLayer(sizes.width, heads, sizes.feedforward, activation(), pre_norm=pre_norm)
            for _ in range(sizes.encoder_layers)
        )
        self.norm = nn.LayerNorm(sizes.width) if pre_norm else None
        self.query_scale = MLP(sizes.width, sizes.width, sizes.width, depth=2) if rescale else None

    def forward(self, tokens: Tensor, position: Tensor, valid: Tensor) -> Memory:
        for layer in self.layers:
            rescaled = position if self.query_scale is None else position * self.query_scale(tokens)
            tokens = layer(tokens, rescaled, valid)
        return Memory(tokens if self.norm is None else self.norm(tokens), position, valid)


class FrozenNetwork(Detector):
    """The frozen detector around a network of any family."""

    network: Any

    def __init__(self, network: nn.Module, profile: Profile) -> None:
        super().__init__(profile)
        self.network = network
        self.freeze()

    def detect(self, images: Tensor, sizes: Tensor) -> DetectorOutput:
        output: DetectorOutput = self.network(images, sizes)
        return output

    def extract(self, images: Tensor, sizes: Tensor) -> tuple[Tensor, ...]:
        features: tuple[Tensor, ...] = self.network.backbone[0](images)
        return features


def frozen(
    family: Callable[..., nn.Module],
    state: Mapping[str, Tensor],
    profile: Profile,
    *,
    read: Callable[[Mapping[str, Tensor]], Any] = Sizes.read,
    detector: Callable[[Any, Profile], Detector] = FrozenNetwork,
) -> Detector:
    """The frozen detector of a family for a state dict in the authors' layout.

    Args:
        family: builds the network from what ``read`` returns.
        state: the tensors.
        profile: its settings are keyword arguments of ``family``.
        read: tells the sizes of the network from the tensors.
        detector: builds the detector around the network.

    Raises:
        ValueError: tensors are missing, left over or of the wrong shape, or ``profile.settings`` has an unknown key;
            the message names them.
    """
    try:
        sizes = read(state)
    except KeyError as error:
        raise ValueError(f"{profile.name}: the checkpoint has no tensor {error}; is it complete?") from error
    try:
        network = family(sizes, **profile.settings)
    except TypeError as error:
        raise ValueError(f"{profile.name}: the settings {dict(profile.settings)} do not fit ({error})") from error
    load_tensors(network, state, profile.name)
    return detector(network, profile)
