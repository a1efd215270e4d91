"""Small detectors of other libraries, trained with the libraries' own losses: an RT-DETR and an SSDlite."""

import json
from dataclasses import replace
from typing import Any

import torch
import torchvision
from torch import Tensor, nn
from torchvision.models.detection.image_list import ImageList
from torchvision.ops import box_convert

from refinebox.adapters import torchvision as ssd
from refinebox.adapters import transformers as rt_detr
from refinebox.boxes import whwh
from refinebox.data.batches import Batch
from refinebox.data.input_format import InputFormat
from refinebox.detection.detector import Detector
from refinebox.detection.profile import Choice, Profile

SSDLITE = "ssdlite320_mobilenet_v3_large"


class RtDetrLearner(nn.Module):
    """RT-DETR (arXiv 2304.08069) of transformers with 3 M parameters and images of ``height`` x ``width`` pixels."""

    def __init__(self, categories: dict[int, str], queries: int, height: int, width: int) -> None:
        import transformers

        super().__init__()
        backbone = transformers.RTDetrResNetConfig(
            embedding_size=32,
            hidden_sizes=[32, 64, 128, 192],
            depths=[2, 2, 2, 2],
            layer_type="basic",
            out_features=["stage2", "stage3", "stage4"],
        )
        self.config = transformers.RTDetrConfig(
            backbone_config=backbone,
            encoder_in_channels=[64, 128, 192],
            encoder_hidden_dim=96,
            encoder_ffn_dim=192,
            encoder_attention_heads=4,
            hidden_expansion=0.5,
            d_model=96,
            decoder_in_channels=[96, 96, 96],
            decoder_layers=3,
            decoder_ffn_dim=192,
            decoder_attention_heads=6,
            num_queries=queries,
            num_denoising=50,
            freeze_backbone_batch_norms=False,
            id2label=dict(enumerate(categories.values())),
        )
        self.network: Any = transformers.RTDetrForObjectDetection(self.config)
        self.categories = categories
        self.form = InputFormat(fit="stretch", height=height, width=width, multiple=32, mean=(0.0,) * 3, std=(1.0,) * 3)

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """The library's losses of one batch, already weighted."""
        labels = [{"boxes": target.boxes, "class_labels": target.columns} for target in batch.targets]
        return {"loss": self.network(pixel_values=batch.images, labels=labels).loss}

    def frozen(self, name: str) -> Detector:
        """The detector as it stands."""
        profile = Profile(
            name,
            "transformers",
            category_ids=tuple(self.categories),
            category_names=self.categories,
            input=self.form,
            layout="transformers",
            settings={"config": json.loads(self.config.to_json_string(use_diff=False))},
            choice=Choice(limit=self.config.num_queries),
        )
        return rt_detr.build(_on_cpu(self.network), profile)


class SsdliteLearner(nn.Module):
    """SSDlite (arXiv 1801.04381) of torchvision: one stage, 2.3 M parameters, images of 320 x 320 pixels."""

    def __init__(self, categories: dict[int, str]) -> None:
        super().__init__()
        columns = len(categories) + 1  # the first is background
        self.network: Any = torchvision.models.get_model(
            SSDLITE, weights=None, weights_backbone=None, num_classes=columns
        )
        self.categories = categories
        self.form = ssd.input_format(self.network.transform)

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """The library's losses of one batch."""
        network = self.network
        maps = list(network.backbone(batch.images).values())
        sides = [tuple(batch.images.shape[-2:])] * len(batch.images)
        anchors = network.anchor_generator(ImageList(batch.images, sides), maps)
        targets, matches = [], []
        for target, size, priors in zip(batch.targets, batch.sizes, anchors, strict=True):
            boxes = box_convert(target.boxes * whwh(size), "cxcywh", "xyxy")
            targets.append({"boxes": boxes, "labels": target.columns + 1})
            none = torch.full((len(priors),), -1, dtype=torch.int64)
            overlaps = torchvision.ops.box_iou(boxes, priors)
            matches.append(network.proposal_matcher(overlaps) if len(boxes) else none)
        losses: dict[str, Tensor] = network.compute_loss(targets, network.head(maps), anchors, matches)
        return losses

    def frozen(self, name: str) -> Detector:
        """The detector as it stands."""
        profile = Profile(f"torchvision:{SSDLITE}", "torchvision", settings={"model": SSDLITE})
        state = _on_cpu(self.network)
        guessed = ssd.build(state, profile).profile
        ids = tuple(self.categories)
        return ssd.build(state, replace(guessed, name=name, category_ids=ids, category_names=self.categories), name)


def _on_cpu(network: nn.Module) -> dict[str, Tensor]:
    return {key: value.cpu() for key, value in network.state_dict().items()}
