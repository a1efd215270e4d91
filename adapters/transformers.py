"""Everything that transformers' ``AutoModelForObjectDetection`` builds, with the library's own modules."""

import inspect
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from refinebox.adapters.parts import processor
from refinebox.adapters.parts.stages import places
from refinebox.adapters.parts.taps import Taps
from torch import Tensor, nn

from refinebox.boxes import whwh
from refinebox.detection.detector import Detector
from refinebox.detection.extras import library
from refinebox.detection.output import DetectorOutput
from refinebox.detection.profile import Choice, Profile, ids_of
from refinebox.detection.tensors import load_tensors

UNNAMED = ("N/A", "LABEL_")  # beginnings of what stands in id2label where a category has no name


class TransformersDetector(Detector):
    """The frozen detector around a model of transformers.

    Feature maps are those of all backbone stages, stride 4 included where the backbone has one. A model that does not
    look at the mask of the padding sees images of different sizes one by one, without padding.

    Raises:
        ValueError: the model has no feature maps, or is one of another task.
    """

    memory_format = torch.contiguous_format  # numbers are the bare model's to the last bit
    probe_side = 256  # some models choose their queries among the cells, and 128 pixels have too few

    def __init__(self, network: Any, profile: Profile) -> None:
        super().__init__(profile)
        self.network = network.train(False)
        canvas = profile.input.canvas(self.probe_side, self.probe_side)
        images = torch.rand(1, 3, *canvas, generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            output = self._run(images)
            if not (hasattr(output, "logits") and hasattr(output, "pred_boxes")):
                raise ValueError(f"{profile.name} gives no boxes and logits; expected an object detector")
            self._taps = Taps(places(network), self._run, images)
            self._masked = profile.input.fit != "stretch" and self._looks_at_masks(images)
        if output.logits.shape[-1] == len(profile.category_ids) + 1:  # no-object has a column
            self.profile = replace(profile, classification="softmax", choice=None)
        self.freeze()

    def detect(self, images: Tensor, sizes: Tensor) -> DetectorOutput:
        if not self._masked and len(images) > 1 and (sizes != sizes[0]).any():
            return self._one_by_one(images, sizes)
        output, features = self._taps(images, inside(images, sizes) if self._masked else None)
        boxes = enclosing(output.pred_boxes)
        if not self._masked:  # then they are fractions of what the model was given
            canvas = sizes.new_tensor(images.shape[-2:]).expand_as(sizes)
            boxes = boxes * (whwh(canvas) / whwh(sizes))[:, None]
        return DetectorOutput(features, boxes, output.logits)

    def extract(self, images: Tensor, sizes: Tensor) -> tuple[Tensor, ...]:
        if not self._masked and len(images) > 1 and (sizes != sizes[0]).any():
            return self._one_by_one(images, sizes).features
        return self._taps.maps(images)

    def _one_by_one(self, images: Tensor, sizes: Tensor) -> DetectorOutput:
        outputs = []
        for image, size in zip(images, sizes, strict=True):
            height, width = self.profile.input.canvas(*size.tolist())
            outputs.append(self.detect(image[None, :, :height, :width], size[None]))
        levels = zip(*(output.features for output in outputs), strict=True)
        return DetectorOutput(
            tuple(pad_maps([level[0] for level in maps]) for maps in levels),
            torch.cat([output.boxes for output in outputs]),
            torch.cat([output.logits for output in outputs]),
        )

    def _run(self, images: Tensor, mask: Tensor | None = None) -> Any:
        masks = {} if mask is None else {"pixel_mask": mask}
        return self.network(pixel_values=images, **masks)

    def _looks_at_masks(self, images: Tensor) -> bool:
        """Whether it changes anything that half of the image is said to be padding; some models only take the mask."""
        if "pixel_mask" not in inspect.signature(self.network.forward).parameters:
            return False
        height, width = images.shape[-2:]
        half = inside(images, torch.tensor([[height, width // 2]]))
        return not torch.equal(self._run(images).logits, self._run(images, half).logits)


def inside(images: Tensor, sizes: Tensor) -> Tensor:
    """``[B, H, W]`` int64, 1 where an image is and 0 in its padding."""
    rows = torch.arange(images.shape[-2], device=images.device) < sizes[:, :1]  # [B, H]
    columns = torch.arange(images.shape[-1], device=images.device) < sizes[:, 1:]  # [B, W]
    return (rows[:, :, None] & columns[:, None, :]).long()


def pad_maps(maps: Sequence[Tensor]) -> Tensor:
    """``[B, C, H, W]`` maps ``[C, H_i, W_i]`` of one stride, zero-padded right and bottom."""
    height, width = (max(each.shape[side] for each in maps) for side in (1, 2))
    padded = [nn.functional.pad(each, (0, width - each.shape[2], 0, height - each.shape[1])) for each in maps]
    return torch.stack(padded)


def enclosing(boxes: Tensor) -> Tensor:
    """``[B, Q, 4]`` cxcywh around ``[B, Q, 4]`` boxes, or around quadrilaterals ``[B, Q, 10]``.

    A quadrilateral is its centre and the offsets of its corners from there, plus a half (PP-DocLayoutV4).
    """
    if boxes.shape[-1] == 4:
        return boxes
    corners = boxes[..., None, :2] + boxes[..., 2:].reshape(*boxes.shape[:-1], 4, 2) - 0.5  # [B, Q, 4, 2]
    low, high = corners.amin(-2), corners.amax(-2)
    return torch.cat([(low + high) / 2, high - low], dim=-1)


BORROWED = {  # image processors of families that have none of their own
    "dab-detr": "ConditionalDetrImageProcessor",
    "d_fine": "RTDetrImageProcessor",
    "rt_detr_v2": "RTDetrImageProcessor",
}


def load(folder: Path, name: str) -> Detector:
    """The frozen detector of a folder that transformers wrote; ``name`` is what it is called.

    Raises:
        ValueError: transformers is missing, cannot read the folder, or builds no detector from it; the processor does
            what an input format cannot say; or tensors are missing.
    """
    transformers = library("transformers", "transformers")
    try:
        config = transformers.AutoConfig.from_pretrained(folder, local_files_only=True)
        _without_downloads(config)
        if type(config) not in transformers.MODEL_FOR_OBJECT_DETECTION_MAPPING:
            raise ValueError(f"a {config.model_type} is no object detector of transformers")
        with quiet():
            network, report = transformers.AutoModelForObjectDetection.from_pretrained(
                folder, config=config, output_loading_info=True, local_files_only=True
            )
        profile = _profile(name, config, _processor(folder, config))
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise ValueError(f"{name} cannot be opened as a detector of transformers: {error}") from error
    for problem in ("missing_keys", "mismatched_keys"):
        if report[problem]:
            keys = sorted(map(str, report[problem]))
            raise ValueError(f"{name}: the weights do not fit; {problem.replace('_', ' ')}: {', '.join(keys[:3])}")
    return TransformersDetector(network, profile)


@contextmanager
def quiet() -> Iterator[None]:
    """The library keeps its progress bars and reports to itself; what they say is said in one line here."""
    logging = library("transformers.utils.logging", "transformers")
    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


def build(state: Mapping[str, Tensor], profile: Profile) -> Detector:
    """The frozen detector of a file that refinebox wrote.

    Raises:
        ValueError: transformers is missing or does not know the configuration, or the tensors do not fit it.
    """
    transformers = library("transformers", "transformers")
    settings = dict(profile.settings["config"])
    try:
        config = transformers.AutoConfig.for_model(settings.pop("model_type"), **settings)
        _without_downloads(config)
        network = transformers.AutoModelForObjectDetection.from_config(config)
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{profile.name} cannot be built by transformers: {error}") from error
    load_tensors(network, state, profile.name)
    return TransformersDetector(network, profile)


def _without_downloads(config: Any) -> None:
    """The weights of the backbone come with those of the detector; they need not be fetched before."""
    for part in filter(None, (config, getattr(config, "backbone_config", None))):
        if getattr(part, "use_pretrained_backbone", None):
            part.use_pretrained_backbone = False


def _processor(folder: Path, config: Any) -> Any:
    """The folder's image processor, or that of the family with its usual settings."""
    transformers = library("transformers", "transformers")
    if (folder / "preprocessor_config.json").is_file() or (folder / "processor_config.json").is_file():
        return transformers.AutoImageProcessor.from_pretrained(folder, local_files_only=True)
    if config.model_type in BORROWED:
        return getattr(transformers, BORROWED[config.model_type])()
    usual = library("transformers.models.auto.image_processing_auto", "transformers").IMAGE_PROCESSOR_MAPPING
    return usual[type(config)]["torchvision"]()


def _profile(name: str, config: Any, image_processor: Any) -> Profile:
    limit = processor.limit(image_processor) or int(getattr(config, "num_queries", 300))
    names = [config.id2label[column] for column in range(config.num_labels)]
    ids = ids_of(names)
    return Profile(
        name=name,
        family="transformers",
        category_ids=ids,
        category_names={i: label for i, label in zip(ids, names, strict=True) if not label.startswith(UNNAMED)},
        input=processor.read(image_processor, _multiple(config)),
        layout="transformers",
        settings={"config": json.loads(config.to_json_string(use_diff=False))},
        choice=Choice(limit=limit),
    )


def _multiple(config: Any) -> int:
    """What the sides of an image must be a multiple of, in pixels."""
    backbone: Any = getattr(config, "backbone_config", None)
    windows = getattr(backbone, "num_windows_side", getattr(backbone, "num_windows", None))
    if windows is not None:
        return int(windows * backbone.patch_size)
    return 32 if hasattr(config, "feat_strides") else 1  # maps are upsampled and added: no side may be rounded
