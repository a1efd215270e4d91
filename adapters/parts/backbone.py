"""ResNet backbones of any width and depth, read from and named like the authors' checkpoints."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock, Bottleneck
from torchvision.ops import FrozenBatchNorm2d

Norm = Callable[[int], nn.Module]


@dataclass(frozen=True)
class ResNetSizes:
    """Everything about a ResNet that its tensors tell.

    Attributes:
        bottleneck: three convolutions a block (R50 and up) rather than two.
        stem: channels after the first convolution.
        depths: blocks of each stage.
        inner: channels of each stage's 3x3 convolution.
        channels: output channels of each stage.
    """

    bottleneck: bool
    stem: int
    depths: tuple[int, ...]
    inner: tuple[int, ...]
    channels: tuple[int, ...]

    @classmethod
    def read(cls, state: Mapping[str, Tensor], prefix: str = "") -> "ResNetSizes":
        """The sizes of the ResNet whose tensors stand in ``state`` under ``prefix``.

        Raises:
            KeyError: a tensor that every ResNet has is missing.
        """
        bottleneck = f"{prefix}layer1.0.conv3.weight" in state
        last, spatial = ("conv3", "conv2") if bottleneck else ("conv2", "conv2")
        depths, inner, channels = [], [], []
        for stage in range(1, 5):
            pattern = re.compile(rf"{re.escape(prefix)}layer{stage}\.(\d+)\.conv1\.weight")
            depths.append(sum(pattern.fullmatch(key) is not None for key in state))
            inner.append(state[f"{prefix}layer{stage}.0.{spatial}.weight"].shape[0])
            channels.append(state[f"{prefix}layer{stage}.0.{last}.weight"].shape[0])
        stem = state[f"{prefix}conv1.weight"].shape[0]
        return cls(bottleneck, stem, tuple(depths), tuple(inner), tuple(channels))

    def build(self, dilation: bool, norm: Norm) -> "ResNet":
        """The untrained network; see :class:`ResNet`.

        Raises:
            ValueError: blocks of two convolutions are to be dilated, which no published model does.
        """
        if dilation and not self.bottleneck:
            raise ValueError("a ResNet with blocks of two convolutions cannot be dilated; name a detector without DC5")
        return ResNet(self, dilation=dilation, norm=norm)


class ResNet(nn.Module):
    """torchvision's ResNet (stride on the 3x3 convolution), with free channel counts and all four stages returned.

    Args:
        sizes: channels and depths.
        dilation: keep stride 16 in the last stage and dilate it instead ("DC5"; its first block is not dilated).
        norm: batch normalisation; frozen for inference, live while a detector is trained from scratch.
    """

    def __init__(self, sizes: ResNetSizes, *, dilation: bool = False, norm: Norm = FrozenBatchNorm2d) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, sizes.stem, 7, stride=2, padding=3, bias=False)
        self.bn1 = norm(sizes.stem)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        previous = sizes.stem
        for stage, (depth, inner, channels) in enumerate(zip(sizes.depths, sizes.inner, sizes.channels, strict=True)):
            stride = 1 if stage == 0 else 2
            dilate = dilation and stage == 3
            blocks = [
                _block(
                    sizes.bottleneck,
                    previous if index == 0 else channels,
                    inner,
                    channels,
                    stride=stride if index == 0 and not dilate else 1,
                    dilation=2 if dilate and index > 0 else 1,
                    norm=norm,
                )
                for index in range(depth)
            ]
            setattr(self, f"layer{stage + 1}", nn.Sequential(*blocks))
            previous = channels

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """C2..C5 of ``images`` ``[B, 3, H, W]``: strides 4, 8, 16 and 32 (16 with dilation), after the last ReLU."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(images))))  # [B, stem, H/4, W/4]
        features = []
        for stage in range(1, 5):
            x = self.get_submodule(f"layer{stage}")(x)
            features.append(x)
        return tuple(features)


def _block(
    bottleneck: bool, inputs: int, inner: int, outputs: int, *, stride: int, dilation: int, norm: Norm
) -> nn.Module:
    downsample = None
    if stride != 1 or inputs != outputs:
        downsample = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride=stride, bias=False), norm(outputs))
    if not bottleneck:
        block: nn.Module = BasicBlock(inputs, outputs, stride, downsample, dilation=dilation, norm_layer=norm)
        return block
    # torchvision derives the inner width as planes * base_width / 64 with planes = outputs / 4
    planes = outputs // Bottleneck.expansion
    base_width = 64 * inner / planes
    block = Bottleneck(inputs, planes, stride, downsample, base_width=base_width, dilation=dilation, norm_layer=norm)
    return block
