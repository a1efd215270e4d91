"""Everything that transformers' ``AutoModelForObjectDetection`` builds, with the library's own modules.

Also those of its ``AutoModelForZeroShotObjectDetection`` that :mod:`refinebox.adapters.parts.prompted` knows.
"""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from refinebox.adapters.parts import processor
from refinebox.adapters.parts.prompted import NETWORKS, UNTOLD, PromptedDetector, Tokens, choice_of, encoder
from refinebox.adapters.parts.transformers_detector import TransformersDetector
from refinebox.adapters.parts.transformers_detector import enclosing as enclosing
from torch import Tensor

from refinebox.detection.detector import Detector
from refinebox.detection.extras import library
from refinebox.detection.profile import Choice, Profile, ids_of
from refinebox.detection.tensors import load_tensors

TOKENIZERS = ("tokenizer.json", "vocab.txt", "vocab.json")  # files, one of which any tokenizer has
SHOWN = 6  # categories in a line
UNNAMED = ("N/A", "LABEL_")  # beginnings of what stands in id2label where a category has no name
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
        builder = _builder(config)
        with quiet():
            network, report = builder.from_pretrained(
                folder, config=config, output_loading_info=True, local_files_only=True
            )
        if config.model_type in NETWORKS:
            if not any(
                (folder / file).is_file() for file in TOKENIZERS
            ):  # the library would make one that knows nothing
                raise ValueError(f"it has no tokenizer; put {' or '.join(TOKENIZERS)} into its folder")
            both = transformers.AutoProcessor.from_pretrained(folder, local_files_only=True)
            encode = encoder(both, config)
            profile = _untold(name, config, both.image_processor, encode(UNTOLD))
        else:
            profile = _profile(name, config, _processor(folder, config))
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise ValueError(f"{name} cannot be opened as a detector of transformers: {error}") from error
    for problem in ("missing_keys", "mismatched_keys"):
        if report[problem]:
            keys = sorted(map(str, report[problem]))
            raise ValueError(f"{name}: the weights do not fit; {problem.replace('_', ' ')}: {', '.join(keys[:3])}")
    if config.model_type in NETWORKS:
        return PromptedDetector(network, profile, encode)
    return TransformersDetector(network, profile)


def about(folder: Path) -> dict[str, str]:
    """What a folder says of its detector without its weights, in words.

    Raises:
        ValueError: transformers is missing, or the folder holds no detector.
    """
    transformers = library("transformers", "transformers")
    try:
        config = transformers.AutoConfig.from_pretrained(folder, local_files_only=True)
        _builder(config)
        form = processor.read(_processor(folder, config), _multiple(config))
    except (OSError, ValueError, KeyError) as error:
        raise ValueError(f"{folder} holds no detector of transformers: {error}") from error
    names = [config.id2label[column] for column in range(config.num_labels)]
    listed = ", ".join(names[:SHOWN]) + (", …" if len(names) > SHOWN else "")
    size = f"{form.height} x {form.width}" if form.fixed else f"short side {form.short_side}, at most {form.long_side}"
    return {
        "family": config.model_type,
        "categories": "those of the prompt" if config.model_type in NETWORKS else f"{len(names)}: {listed}",
        "input": f"{size}, {form.fit}",
    }


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
        network = _builder(config).from_config(config)
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{profile.name} cannot be built by transformers: {error}") from error
    load_tensors(network, state, profile.name)
    return (PromptedDetector if config.model_type in NETWORKS else TransformersDetector)(network, profile)


def _builder(config: Any) -> Any:
    """The class of transformers that builds a detector of this kind.

    Raises:
        ValueError: it is none, or one that is told in another way than by phrases what to look for.
    """
    transformers = library("transformers", "transformers")
    if type(config) in transformers.MODEL_FOR_OBJECT_DETECTION_MAPPING:
        return transformers.AutoModelForObjectDetection
    if config.model_type in NETWORKS:
        return transformers.AutoModelForZeroShotObjectDetection
    raise ValueError(
        f"a {config.model_type} is no object detector of transformers, nor one of {', '.join(NETWORKS)}, which are "
        "told in words what to look for"
    )


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


def _untold(name: str, config: Any, image_processor: Any, tokens: Tokens) -> Profile:
    """The profile of a detector that nobody has told what to look for."""
    return Profile(
        name=name,
        family="transformers",
        input=processor.read(image_processor, _multiple(config)),
        layout="transformers",
        settings={"config": json.loads(config.to_json_string(use_diff=False)), "prompt": [], "tokens": tokens},
        choice=choice_of(config),
    )


def _multiple(config: Any) -> int:
    """What the sides of an image must be a multiple of, in pixels."""
    backbone: Any = getattr(config, "backbone_config", None)
    windows = getattr(backbone, "num_windows_side", getattr(backbone, "num_windows", None))
    if windows is not None:
        return int(windows * backbone.patch_size)
    return 32 if hasattr(config, "feat_strides") else 1  # maps are upsampled and added: no side may be rounded
