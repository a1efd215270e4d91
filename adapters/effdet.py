"""EfficientDet (arXiv 1911.09070) with the modules of the library effdet."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from refinebox.adapters.parts import candidates
from refinebox.adapters.parts.taps import Taps, layers, maps_in
from torch import Tensor, nn
from torchvision.ops import clip_boxes_to_image

from refinebox.boxes import to_fractions
from refinebox.detection.detector import Detector
from refinebox.detection.extras import library
from refinebox.detection.output import DetectorOutput
from refinebox.detection.profile import COCO_NAMES, MEAN, STD, InputFormat, Profile
from refinebox.detection.tensors import load_tensors

CLASSIFIER = "class_net.predict.conv_pw.bias"  # the tensor that tells how many categories there are
IOU = 0.5  # of the library's suppression


class EfficientDet(Detector):
    """The frozen detector around an EfficientDet.

    Queries are the candidates of :mod:`refinebox.adapters.parts.candidates`; feature maps are the backbone's.

    Args:
        network: the library's.
        anchors: ``[A, 4]`` yxyx of all levels, in pixels of the input.
        profile: what it is called and how its images come in.
    """

    anchors: Tensor
    memory_format = torch.contiguous_format  # numbers are the library's to the last bit
    obstacle = candidates.OBSTACLE

    def __init__(self, network: Any, anchors: Tensor, profile: Profile) -> None:
        super().__init__(profile)
        self.network = network.train(False)
        self.register_buffer("anchors", anchors, persistent=False)  # follows from the configuration
        self._limit = network.config.max_detection_points
        images = torch.zeros(1, 3, *profile.input.canvas(1, 1))
        with torch.no_grad():
            places = [(layer, maps_in) for layer in layers(network.backbone)]
            self._taps = Taps(places, network, images, backbone=network.backbone)
        self.freeze()

    def detect(self, images: Tensor, sizes: Tensor) -> DetectorOutput:
        (categories, moves), features = self._taps(images)
        columns = len(self.category_ids)
        scores, codes = _rows(categories, columns).sigmoid(), _rows(moves, 4)  # [B, A, K], [B, A, 4]
        chosen = [self._chosen(*image) for image in zip(scores, codes, sizes, strict=True)]
        return DetectorOutput(features, *candidates.batched(chosen, self.profile.final))

    def _chosen(self, scores: Tensor, codes: Tensor, size: Tensor) -> tuple[Tensor, Tensor]:
        from effdet.anchors import decode_box_outputs

        rows, scores = candidates.considered(scores, 0.0, self._limit)
        boxes = decode_box_outputs(codes[rows].float(), self.anchors[rows], output_xyxy=True)
        boxes = clip_boxes_to_image(boxes, tuple(size.tolist()))
        rows, scores = candidates.distinct(boxes, scores, self.profile.final)
        return to_fractions(boxes[rows], size), scores

    def extract(self, images: Tensor, sizes: Tensor) -> tuple[Tensor, ...]:
        return self._taps.maps(images)


def _rows(levels: list[Tensor], width: int) -> Tensor:
    """``[B, A, width]`` of the heads' ``[B, anchors * width, H, W]`` at every level."""
    return torch.cat([level.permute(0, 2, 3, 1).reshape(len(level), -1, width) for level in levels], dim=1)


def known() -> list[str]:
    """Names of the library's configurations."""
    library("effdet", "effdet")
    from effdet.config.model_config import efficientdet_model_param_dict

    return list(efficientdet_model_param_dict)


def about(model: str) -> dict[str, str]:
    """What the library says of a model, in words; raises ValueError where it has none of that name."""
    check(model)
    config = library("effdet", "effdet").get_efficientdet_config(model)
    return {
        "family": "EfficientDet",
        "backbone": config.backbone_name,
        "input": f"{config.image_size[0]} x {config.image_size[1]}, letterboxed",
        "licence": "Apache-2.0",
        "weights": "by effdet, on first use" if config.url else "none are published; pass a file with --weights",
        "source": config.url or "–",
    }


def check(model: str) -> None:
    """Raises ValueError where the library has no configuration of that name."""
    if model not in known():
        raise ValueError(f"effdet has no model {model!r}; known: {', '.join(known())}")


def load(model: str, state: Mapping[str, Tensor] | None, where: str) -> Detector:
    """The frozen detector of a configuration's name.

    Args:
        model: as the library names it, ``tf_efficientdet_d0`` for instance.
        state: its tensors; None for the library's own weights, which it downloads once.
        where: names the file in messages.

    Raises:
        ValueError: effdet is missing, has no such configuration or no weights for it, or the tensors do not fit it.
        ConnectionError: the weights could not be downloaded.
    """
    effdet = library("effdet", "effdet")
    check(model)
    if state is None:
        state = _download(effdet, model)
    return build(state, Profile(f"effdet:{model}", "effdet", settings={"model": model}), where)


def build(state: Mapping[str, Tensor], profile: Profile, where: str = "") -> Detector:
    """The frozen detector with the tensors of ``state``, for a name or for a file that refinebox wrote."""
    effdet = library("effdet", "effdet")
    state = {name.removeprefix("model."): tensor for name, tensor in state.items() if name != "anchors.boxes"}
    config = effdet.get_efficientdet_config(profile.settings["model"])
    if CLASSIFIER in state:
        config.num_classes = len(state[CLASSIFIER]) // (config.num_scales * len(config.aspect_ratios))
    network = effdet.EfficientDet(config, pretrained_backbone=False)
    load_tensors(network, state, where or profile.name)
    anchors = effdet.anchors.Anchors.from_config(config).boxes
    if profile.category_ids:
        return EfficientDet(network, anchors, profile)
    ids = tuple(range(1, config.num_classes + 1))  # 0 is background, which has no column
    height, width = config.image_size
    mean, std = config.get("mean", MEAN), config.get("std", STD)
    form = InputFormat("letterbox", height=height, width=width, mean=tuple(mean), std=tuple(std))
    return EfficientDet(
        network,
        anchors,
        replace(
            profile,
            classification="probability",
            category_ids=ids,
            category_names=COCO_NAMES if len(ids) == max(COCO_NAMES) else {},
            input=form,
            choice=candidates.suppression(config.max_det_per_image, 0.0, IOU),
        ),
    )


def _download(effdet: Any, model: str) -> Mapping[str, Tensor]:
    url = effdet.get_efficientdet_config(model).url
    if not url:
        raise ValueError(f"effdet publishes no weights of {model}; pass a file as weights (--weights FILE)")
    try:
        network: nn.Module = effdet.create_model(model, pretrained=True)
    except OSError as error:
        raise ConnectionError(
            f"could not download {url} ({getattr(error, 'reason', None) or error}); try again, or download it by hand "
            f"into {torch.hub.get_dir()}/checkpoints, or pass the file as weights (--weights FILE)"
        ) from error
    return network.state_dict()
