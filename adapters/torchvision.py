"""The detection models of torchvision, with the library's own modules."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import torch
import torchvision
from refinebox.adapters.parts import candidates
from refinebox.adapters.parts.taps import Taps, layers, maps_in
from torch import Tensor, nn
from torchvision.models.detection.image_list import ImageList
from torchvision.ops import FrozenBatchNorm2d, clip_boxes_to_image, remove_small_boxes

from refinebox.boxes import to_fractions
from refinebox.detection.detector import Detector
from refinebox.detection.output import DetectorOutput
from refinebox.detection.profile import COCO_NAMES, InputFormat, Profile
from refinebox.detection.tensors import load_tensors

COLUMNS = 91  # categories of the library's own weights, background among them
CLASSIFIERS = (  # the tensors that tell how many categories there are
    "roi_heads.box_predictor.cls_score.bias",
    "head.classification_head.cls_logits.bias",
    "head.classification_head.module_list.0.bias",
    "head.classification_head.module_list.0.1.bias",
)
SMALLEST = 1e-2  # pixels; R-CNNs drop thinner boxes
# weights that were trained with another epsilon in the batch normalisation, which the library sets when it loads them
WITHOUT_EPSILON = ("FasterRCNN_ResNet50_FPN_Weights", "MaskRCNN_ResNet50_FPN_Weights", "RetinaNet_ResNet50_FPN_Weights")

Dense = tuple[Tensor, Tensor]  # of an image: boxes [M, 4] xyxy in pixels, scores [M, K]


class TorchvisionDetector(Detector):
    """The frozen detector around a detection model of torchvision.

    Queries are the candidates of :mod:`refinebox.adapters.parts.candidates`; feature maps are the backbone's, of every
    stride from 4 to 32 that it has, in front of a pyramid.
    """

    memory_format = torch.contiguous_format  # numbers are the library's to the last bit

    def __init__(self, network: Any, profile: Profile) -> None:
        super().__init__(profile)
        self.network = network.train(False)
        self._dense = _kind(network)
        images = torch.zeros(1, 3, *self.probe_canvas())
        body = getattr(network.backbone, "body", network.backbone)  # what comes before a pyramid
        with torch.no_grad():
            self._taps = Taps([(layer, maps_in) for layer in layers(body)], self._run, images)
        self.freeze()

    def detect(self, images: Tensor, sizes: Tensor) -> DetectorOutput:
        found, features = self._taps(images, sizes)
        chosen = [self._chosen(boxes, scores, size) for (boxes, scores), size in zip(found, sizes, strict=True)]
        return DetectorOutput(features, *candidates.batched(chosen, self.profile.final))

    def _chosen(self, boxes: Tensor, scores: Tensor, size: Tensor) -> tuple[Tensor, Tensor]:
        rows, scores = candidates.distinct(boxes, scores, self.profile.final)
        return to_fractions(boxes[rows], size), scores

    def extract(self, images: Tensor, sizes: Tensor) -> tuple[Tensor, ...]:
        return self._taps.maps(images, sizes)

    def _run(self, images: Tensor, sizes: Tensor | None = None) -> list[Dense]:
        inside = [tuple(images.shape[-2:])] * len(images) if sizes is None else [tuple(size) for size in sizes.tolist()]
        return list(self._dense(self.network, ImageList(images, inside)))


def regions(network: Any, images: ImageList) -> Iterator[Dense]:
    """Of an R-CNN: every (proposal, category) is a box of its own."""
    heads = network.roi_heads
    maps = network.backbone(images.tensors)
    proposals, _ = network.rpn(images, maps)
    pooled = heads.box_head(heads.box_roi_pool(maps, proposals, images.image_sizes))
    logits, moves = heads.box_predictor(pooled)
    counts = [len(boxes) for boxes in proposals]
    # the shape is lost where there are no proposals
    all_boxes = heads.box_coder.decode(moves, proposals).reshape(*logits.shape, 4).split(counts)
    for boxes, scores, size in zip(all_boxes, logits.softmax(-1).split(counts), images.image_sizes, strict=True):
        scores = scores[:, 1:]  # the first is background
        row, column = (scores > heads.score_thresh).nonzero(as_tuple=True)
        own = clip_boxes_to_image(boxes[row, column + 1], size)
        kept = remove_small_boxes(own, SMALLEST)
        row, column = row[kept], column[kept]
        single = scores.new_zeros(len(row), scores.shape[1])
        single[range(len(row)), column] = scores[row, column]
        yield own[kept], single


def anchors(network: Any, images: ImageList) -> Iterator[Dense]:
    """Of RetinaNet and FCOS: each level has its best pairs."""
    maps = list(network.backbone(images.tensors).values())
    heads = network.head(maps)
    scores = heads["cls_logits"].sigmoid()
    if "bbox_ctrness" in heads:
        scores = (scores * heads["bbox_ctrness"].sigmoid()).sqrt()
    cells = [each.shape[-2] * each.shape[-1] for each in maps]
    counts = [count * (scores.shape[1] // sum(cells)) for count in cells]
    decode = getattr(network.box_coder, "decode_single", network.box_coder.decode)
    all_anchors = network.anchor_generator(images, maps)
    for index, size in enumerate(images.image_sizes):
        levels: list[Dense] = []
        for level, moves, priors in zip(
            scores[index].split(counts),
            heads["bbox_regression"][index].split(counts),
            all_anchors[index].split(counts),
            strict=True,
        ):
            rows, kept = candidates.considered(level, network.score_thresh, network.topk_candidates)
            levels.append((clip_boxes_to_image(decode(moves[rows], priors[rows]), size), kept))
        boxes, columns = zip(*levels, strict=True)
        yield torch.cat(boxes), torch.cat(columns)


def priors(network: Any, images: ImageList) -> Iterator[Dense]:
    """Of SSD: each category has its best boxes, and background is the first column."""
    maps = list(network.backbone(images.tensors).values())
    heads = network.head(maps)
    scores = heads["cls_logits"].softmax(-1)[..., 1:]
    limit = network.topk_candidates
    for moves, own, where, size in zip(
        heads["bbox_regression"], scores, network.anchor_generator(images, maps), images.image_sizes, strict=True
    ):
        rows, kept = candidates.considered(own, network.score_thresh, limit, by_category=True)
        yield clip_boxes_to_image(network.box_coder.decode_single(moves[rows], where[rows]), size), kept


def _kind(network: nn.Module) -> Callable[[Any, ImageList], Iterator[Dense]]:
    detection = torchvision.models.detection
    if isinstance(network, detection.FasterRCNN):
        return regions
    return priors if isinstance(network, detection.ssd.SSD) else anchors


def known() -> list[str]:
    """Names of the library's detection models."""
    names: list[str] = torchvision.models.list_models(module=torchvision.models.detection)
    return names


def about(model: str) -> dict[str, str]:
    """What the library says of a model, in words; raises ValueError where it has none of that name."""
    check(model)
    weights = torchvision.models.get_model_weights(model).DEFAULT
    network = torchvision.models.get_model(model, weights=None, weights_backbone=None)
    form = input_format(network.transform)
    sides = f"{form.height} x {form.width}" if form.fixed else f"short side {form.short_side}, long {form.long_side}"
    metrics = weights.meta["_metrics"].get("COCO-val2017", {})
    return {
        "family": type(network).__name__,
        "COCO AP": f"{metrics['box_map']:.1f}" if "box_map" in metrics else "–",
        "input": sides,
        "licence": "BSD-3-Clause for the code; the terms of COCO and ImageNet for the weights",
        "weights": "by torchvision, on first use",
        "source": weights.url,
        "MB": f"{weights.meta['_file_size']:.0f}",
    }


def check(model: str) -> None:
    """Raises ValueError where the library has no detection model of that name."""
    if model not in known():
        raise ValueError(f"torchvision has no detection model {model!r}; known: {', '.join(known())}")


def load(model: str, state: Mapping[str, Tensor] | None, where: str) -> Detector:
    """The frozen detector of a model's name.

    Args:
        model: the library's name.
        state: its tensors; None for the library's own weights, which torchvision downloads once.
        where: names the file in messages.

    Raises:
        ValueError: the library has no such detection model, or the tensors do not fit it.
        ConnectionError: the weights could not be downloaded.
    """
    check(model)
    settings: dict[str, Any] = {"model": model}
    if state is None:
        weights = torchvision.models.get_model_weights(model).DEFAULT
        state = _download(weights)
        if type(weights).__name__ in WITHOUT_EPSILON and weights.name == "COCO_V1":
            settings["epsilon"] = 0.0
    return build(state, Profile(f"torchvision:{model}", "torchvision", settings=settings), where)


def build(state: Mapping[str, Tensor], profile: Profile, where: str = "") -> Detector:
    """The frozen detector with the tensors of ``state``, for a name or for a file that refinebox wrote."""
    network = _network(state, profile, where or profile.name)
    if profile.category_ids:
        return TorchvisionDetector(network, profile)
    heads = getattr(network, "roi_heads", network)
    columns = _columns(state, profile.settings["model"])
    ids = tuple(range(int(hasattr(network, "roi_heads") or _kind(network) is priors), columns))
    return TorchvisionDetector(
        network,
        replace(
            profile,
            classification="probability",
            category_ids=ids,
            category_names=COCO_NAMES if columns == COLUMNS else {},
            input=input_format(network.transform),
            choice=candidates.suppression(heads.detections_per_img, heads.score_thresh, heads.nms_thresh),
        ),
    )


def input_format(transform: Any) -> InputFormat:
    """What a model's own ``transform`` does to images."""
    sides: dict[str, Any] = {"short_side": transform.min_size[-1], "long_side": transform.max_size}
    if transform.fixed_size is not None:
        width, height = transform.fixed_size
        sides = {"fit": "stretch", "height": height, "width": width}
    return InputFormat(
        **sides,
        multiple=transform.size_divisible,
        mean=tuple(transform.image_mean),
        std=tuple(transform.image_std),
        rounding="torchvision",
        library="torch",
        antialias=False,
        whole=False,
    )


def _network(state: Mapping[str, Tensor], profile: Profile, where: str) -> Any:
    """The model with its tensors; batch normalisation is frozen where the tensors say that it was."""
    model = profile.settings["model"]
    network = torchvision.models.get_model(
        model, weights=None, weights_backbone=None, num_classes=_columns(state, model)
    )
    for name, module in list(network.named_modules()):
        if isinstance(module, nn.BatchNorm2d) and f"{name}.num_batches_tracked" not in state:
            parent, _, child = name.rpartition(".")
            frozen = FrozenBatchNorm2d(module.num_features, profile.settings.get("epsilon", module.eps))
            setattr(network.get_submodule(parent), child, frozen)
    load_tensors(network, state, where)
    return network


def _columns(state: Mapping[str, Tensor], model: str) -> int:
    """The categories that a classifier was trained for, background among them."""
    (name,) = [name for name in CLASSIFIERS if name in state] or [""]
    if not name:
        return COLUMNS  # and the tensors that do not fit will be named
    usual = torchvision.models.get_model(model, weights=None, weights_backbone=None, num_classes=COLUMNS).state_dict()
    return len(state[name]) * COLUMNS // len(usual.get(name, state[name]))


def _download(weights: Any) -> Mapping[str, Tensor]:
    try:
        state: Mapping[str, Tensor] = weights.get_state_dict(progress=False, check_hash=True)
    except OSError as error:
        folder = f"{torch.hub.get_dir()}/checkpoints"
        raise ConnectionError(
            f"could not download {weights.url} ({getattr(error, 'reason', None) or error}); try again, or download it "
            f"by hand into {folder}, or pass the file as weights (--weights FILE)"
        ) from error
    return state
