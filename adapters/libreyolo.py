"""The detectors of libreyolo (YOLOX, YOLOv9, RTMDet, D-FINE and many more) behind that library's one interface."""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import torch
from refinebox.adapters.parts import candidates
from refinebox.adapters.parts.measured import Convention, measure
from refinebox.adapters.parts.taps import Taps, layers, maps_in
from torch import Tensor, nn
from torch.utils._pytree import tree_map
from torchvision.ops import clip_boxes_to_image

from refinebox.boxes import to_fractions
from refinebox.detection.detector import Detector
from refinebox.detection.extras import library
from refinebox.detection.output import Detections, DetectorOutput
from refinebox.detection.profile import Choice, Profile, ids_of
from refinebox.detection.tensors import load_tensors

ABOVE, IOU, LIMIT = 0.001, 0.6, 300  # what the library's own evaluation keeps of an image
CONSIDERED = 10_000  # pairs of a box and a category before the suppression
# families that cut boxes at the border when they have chosen, not before, and whether they drop those with no area left
CUT_LAST = {"ppyoloe": False, "yolo9_e2e": True}
OF_TORCHVISION = ("faster_rcnn", "mask_rcnn", "fcos", "retinanet", "ssd")
BLURS = (0.0, 1.0, 30.0)  # logits and fractions, cells and pixels: what networks of the library say
WORDS = {"nano": "n", "pico": "p", "tiny": "t", "small": "s", "medium": "m", "large": "l", "xlarge": "x"}


class LibreDetector(Detector):
    """The frozen detector around a model of libreyolo.

    The library decodes boxes and chooses categories; suppression, where a family has one, comes after refinement.

    Args:
        model: the library's wrapper around a network.
        profile: what it is called and how its images come in.
        convention: how the library's images differ from ours.
    """

    memory_format = torch.contiguous_format  # numbers are the library's to the last bit
    obstacle = "libreyolo chooses its boxes outside the network, another number in every image"

    def __init__(self, model: Any, profile: Profile, convention: Convention) -> None:
        super().__init__(profile)
        self.network = model.model.train(False)
        self._model, self._convention = model, convention
        self._cut_last = model.FAMILY in CUT_LAST
        images = torch.zeros(1, 3, profile.input.height, profile.input.width)
        with torch.no_grad():
            self._taps = taps(self.network, model._forward, images)
        self.freeze()

    def detect(self, images: Tensor, sizes: Tensor) -> DetectorOutput:
        from libreyolo.postprocess.slicing import slice_batch_outputs

        output, features = self._taps(self._convention.applied(images, sizes))
        canvas = images.shape[-2], images.shape[-1]
        chosen = [
            self._chosen(*pairs(self._model, slice_batch_outputs(output, index), canvas), size)
            for index, size in enumerate(sizes)
        ]
        return DetectorOutput(features, *candidates.batched(chosen, self.profile.final))

    def _chosen(self, boxes: Tensor, columns: Tensor, scores: Tensor, size: Tensor) -> tuple[Tensor, Tensor]:
        height, width = size.tolist()
        boxes = boxes.to(size.device)
        kept = boxes.isfinite().all(-1).to(columns.device)
        if self.profile.final.rule == "suppression" and not self._cut_last:  # others leave boxes beyond the border
            boxes = boxes.clamp(min=0).minimum(size.new_tensor([width, height, width, height]))
            kept &= (boxes[:, 2:] > boxes[:, :2]).all(-1).to(columns.device)
        single = scores.new_zeros(int(kept.sum()), len(self.category_ids))
        single[range(len(single)), columns[kept]] = scores[kept]
        boxes, single = boxes[kept.to(boxes.device)], single.to(size.device)
        rows, single = candidates.distinct(boxes, single, self.profile.final)
        return to_fractions(boxes[rows], size), single

    def finish(self, detections: Detections, size: tuple[int, int]) -> Detections:
        if not self._cut_last:
            return detections
        boxes = clip_boxes_to_image(detections.boxes, size)
        kept = (boxes[:, 2:] > boxes[:, :2]).all(-1) | (not CUT_LAST[self._model.FAMILY])
        queries = None if detections.queries is None else detections.queries[kept]
        return Detections(boxes[kept], detections.scores[kept], detections.labels[kept], queries)

    def extract(self, images: Tensor, sizes: Tensor) -> tuple[Tensor, ...]:
        return self._taps.maps(self._convention.applied(images, sizes))


def taps(network: nn.Module, run: Callable[..., Any], images: Tensor) -> Taps:
    """The maps of a network's backbone and of a pyramid that is wrapped around it; without a backbone, of all layers.

    A backbone whose layers make no maps, being a transformer's, is asked for those that it returns.
    """
    backbone = _inner(network)
    if backbone is None:
        return Taps([(layer, maps_in) for layer in _stages(_unwrapped(network))], run, images, returned=False)
    try:
        return Taps([(layer, maps_in) for layer in _stages(backbone)], run, images)
    except ValueError:
        return Taps([(backbone, maps_in)], run, images)


def _unwrapped(module: nn.Module) -> nn.Module:
    """What is left of a module without those around it that hold nothing else."""
    children = list(module.children())
    alone = len(children) == 1 and not isinstance(children[0], (nn.Sequential, nn.ModuleList))
    return _unwrapped(children[0]) if alone else module


def _stages(module: nn.Module) -> Iterator[nn.Module]:
    for layer in (module, *layers(module)):
        if (inner := _inner(layer)) is not None:
            yield from _stages(inner)
        elif layer is not module and "Position" not in type(layer).__name__:  # an embedding is no feature
            yield layer


def _inner(module: nn.Module) -> nn.Module | None:
    found = (getattr(module, name, None) for name in ("backbone", "body"))
    return next((inner for inner in found if isinstance(inner, nn.Module)), None)


def pairs(
    model: Any, output: Any, canvas: tuple[int, int], above: float = ABOVE, iou: float = 1.0, limit: int = CONSIDERED
) -> tuple[Tensor, Tensor, Tensor]:
    """Boxes ``[M, 4]`` xyxy in pixels of the input, columns ``[M]`` and scores ``[M]`` that the library finds.

    An ``iou`` of 1 leaves the library's suppression nothing to do.
    """
    size = None if model.FAMILY in CUT_LAST else (canvas[1], canvas[0])  # without a size they are not cut
    found = model._postprocess(output, above, iou, size, max_det=limit, ratio=1.0)
    boxes, columns, scores = (torch.as_tensor(found[key]) for key in ("boxes", "classes", "scores"))
    return boxes.float().reshape(-1, 4), columns.long().reshape(-1), scores.float().reshape(-1)


def suppresses(model: Any, canvas: tuple[int, int]) -> bool:
    """Whether the library's post-processing drops boxes because they overlap; families that predict sets do not.

    What the network says is blurred as well, as boxes of an untrained one may be too small to overlap.
    """
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(1, 3, *canvas, generator=generator)
    with torch.no_grad():
        output = model._forward(images)
    for scale in BLURS:
        blurred = tree_map(lambda part: _blurred(part, scale, generator), output)  # noqa: B023
        counts = [len(pairs(model, blurred, canvas, above=-1.0, iou=iou)[0]) for iou in (0.01, 1.0)]
        if counts[0] != counts[1] or not counts[1]:  # where nothing is found it cannot be told, and does no harm
            return True
    return False


def _blurred(part: Any, scale: float, generator: torch.Generator) -> Any:
    if not scale or not isinstance(part, Tensor) or not part.is_floating_point():
        return part
    return part + scale * torch.randn(part.shape, generator=generator)


def load(model: str, state: Mapping[str, Tensor] | None, where: str) -> Detector:
    """The frozen detector of a family and a size.

    Args:
        model: family and size, as ``yolox-n`` or the library's ``LibreYOLOXn``; the size may be left to the tensors.
        state: the tensors; None for the library's own weights, which it downloads once.
        where: the file, or what to call it in messages.

    Raises:
        ValueError: libreyolo is missing, has no such detector, or the tensors do not fit it.
        ConnectionError: the weights could not be downloaded.
    """
    libreyolo = library("libreyolo", "libreyolo")
    kind, size = find(model, state)
    if kind.FAMILY in OF_TORCHVISION:
        raise ValueError(
            f"libreyolo's {kind.FAMILY} is torchvision's, whose candidates it does not hand out; name {model} as "
            "torchvision does, with a file of its own weights: refinebox detectors torchvision"
        )
    if state is None:
        wrapper = _downloaded(libreyolo, f"{kind.FILENAME_PREFIX}{size}{kind.WEIGHT_EXT}")
    else:
        wrapper = _opened(kind, size, state, where)
    settings = {"family": kind.FAMILY, "size": size, "classes": wrapper.nb_classes}
    return detector(wrapper, Profile(f"libreyolo:{kind.FAMILY}-{size}", "libreyolo", settings=settings))


def detector(model: Any, profile: Profile) -> Detector:
    """The frozen detector around the library's wrapper; what the profile leaves open is measured."""
    model.model.train(False)
    form, convention = measure(model._preprocess)
    if profile.category_ids:
        return LibreDetector(model, profile, convention)
    suppressing = suppresses(model, (form.height, form.width))
    names = [str(model.names[column]) for column in range(model.nb_classes)]
    ids = ids_of(names)
    return LibreDetector(
        model,
        replace(
            profile,
            classification="probability",
            category_ids=ids,
            category_names={i: name for i, name in zip(ids, names, strict=True) if name != f"class_{i}"},
            input=form,
            choice=candidates.suppression(LIMIT, ABOVE, IOU) if suppressing else Choice("pairs", LIMIT, above=ABOVE),
        ),
        convention,
    )


def build(state: Mapping[str, Tensor], profile: Profile) -> Detector:
    """The frozen detector of a file that refinebox wrote."""
    library("libreyolo", "libreyolo")
    settings = profile.settings
    kind = next(kind for kind in kinds() if settings["family"] == kind.FAMILY)
    model = kind._from_scratch(size=settings["size"], nb_classes=settings["classes"], device="cpu")
    load_tensors(model.model, state, profile.name)
    return detector(model, profile)


def known() -> list[str]:
    """Family and size of the library's detectors."""
    library("libreyolo", "libreyolo")
    own = (kind for kind in kinds() if kind.FAMILY not in OF_TORCHVISION)
    return [f"{kind.FAMILY}-{size}" for kind in own for size in kind.INPUT_SIZES]


def about(model: str) -> dict[str, str]:
    """What the library says of a detector, in words; raises ValueError where it has none of that name."""
    library("libreyolo", "libreyolo")
    kind, size = find(model, None)
    return {
        "family": kind.FAMILY,
        "input": f"{kind.INPUT_SIZES[size]} pixels a side",
        "licence": "MIT for the code; the weights have their authors' (docs/detectors.md)",
        "weights": f"by libreyolo, on first use: {kind.FILENAME_PREFIX}{size}{kind.WEIGHT_EXT}",
    }


def kinds() -> list[Any]:
    """The library's families that detect boxes."""
    from libreyolo.models.base import BaseModel

    return [kind for kind in BaseModel._registry if "detect" in kind.SUPPORTED_TASKS and kind.FAMILY]


def find(model: str, state: Mapping[str, Tensor] | None) -> tuple[Any, str]:
    """Class and size for a name, the size from the tensors where the name has none.

    Raises:
        ValueError: there is no such family or size.
    """
    plain = re.sub(r"[-_ ]|^libre|\.pt$", "", model.lower())
    for word, letter in WORDS.items():
        plain = re.sub(f"{word}$", letter, plain)
    for kind in kinds():
        beginnings = {re.sub(r"[-_ ]|^libre", "", name.lower()) for name in (kind.FAMILY, kind.FILENAME_PREFIX)}
        sizes = {beginning + size.lower(): size for beginning in beginnings for size in kind.INPUT_SIZES}
        if plain in sizes:
            return kind, sizes[plain]
        if plain in beginnings and state is not None and (size := kind.detect_size(dict(state))):
            return kind, size
    families = ", ".join(f"{kind.FAMILY}-{'|'.join(kind.INPUT_SIZES)}" for kind in kinds())
    raise ValueError(f"libreyolo has no detector {model!r}; known: {families}")


def _opened(kind: Any, size: str, state: Mapping[str, Tensor], where: str) -> Any:
    """The library's model with the tensors of a file, which the library may rename but not leave out."""
    classes = kind.detect_nb_classes(dict(state)) or 80
    model = kind._from_scratch(size=size, nb_classes=classes, device="cpu")
    renamed = model._prepare_state_dict(dict(state))
    model._prepare_model_for_state_dict(renamed)
    counters = {key: x for key, x in model.model.state_dict().items() if key.endswith("num_batches_tracked")}
    load_tensors(model.model, {**counters, **renamed}, where)
    return model


def _downloaded(libreyolo: Any, name: str) -> Any:
    try:
        return libreyolo.LibreYOLO(name, device="cpu")
    except (OSError, RuntimeError, ValueError) as error:
        reason = str(error).split("\n", 1)[0]
        raise ConnectionError(
            f"libreyolo could not get {name} ({reason}); try again, put it into the folder weights, or pass the "
            "file as weights (--weights FILE)"
        ) from error
