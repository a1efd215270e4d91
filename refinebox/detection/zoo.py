"""How a name or a file becomes a frozen detector."""

import importlib
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from torch import Tensor

from refinebox.data.categories import COCO_NAMES
from refinebox.detection.description import describe as describe
from refinebox.detection.description import profile_from as profile_from
from refinebox.detection.detector import Detector
from refinebox.detection.entry import cached, input_of
from refinebox.detection.given import Given
from refinebox.detection.profile import Profile
from refinebox.detection.prompt import phrases_in
from refinebox.detection.published import DETECTORS
from refinebox.detection.sources import LIBRARIES, from_library, is_hub_id, native
from refinebox.files import checkpoint, hub
from refinebox.files.download import fetch

RESULTS = "results:"
BARE = "bare_backbone"  # the family of those that find nothing


def load_detector(
    name: str,
    weights: str | Path | None = None,
    features: str | None = None,
    *,
    ema: bool | None = None,
    prompt: str | Sequence[str] | None = None,
) -> Detector:
    """A frozen detector.

    Args:
        name: a name of the table (``refinebox detectors`` lists them); the path of a detector file of ours or of a
            folder that transformers wrote; the name of such a folder on the Hugging Face hub, ``organisation/name``; a
            library's model, as ``torchvision:fcos_resnet50_fpn``; ``package.module:function`` for a function that
            returns a :class:`Detector` and is called with ``weights`` where they are given; or ``results:FILE`` for the
            boxes of a COCO results file.
        weights: the checkpoint, in the authors', detrex's, mmdetection's or transformers' layout (a file, an index of
            shards or a folder); by default the published one, which is downloaded once.
        features: what gives the feature maps for boxes of a file: a detector's name as above, ``torchvision:NAME`` or
            ``timm:NAME`` for a backbone; ``weights`` are then its own.
        ema: of a checkpoint with two sets of weights, whether to take the moving average; by default yes.
        prompt: what a detector that takes text is to look for: phrases, or one text in which points or commas part
            them; by default it looks for the categories of the first data set that it is linked with.

    Raises:
        ValueError: the name is unknown, or the checkpoint is damaged, unsafe, incomplete or of another family.
        FileNotFoundError: there is no file at the path, or the weights must be fetched by hand.
        ConnectionError: the weights could not be downloaded.
    """
    detector = _opened(name, weights, features, ema)
    if prompt is not None:
        detector.ask(phrases_in(prompt))
    return detector


def _opened(name: str, weights: str | Path | None, features: str | None, ema: bool | None) -> Detector:
    """:func:`load_detector` before it is told what to look for."""
    if name.startswith(RESULTS):
        return load_given(features, weights, Path(name.removeprefix(RESULTS)), ema=ema)
    if features is not None:
        raise ValueError(f"{name} has features of its own; leave out {features}, or name results:FILE with it")
    source, _, model = name.partition(":")
    if source in LIBRARIES:
        return from_library(source, model, weights, ema=ema)
    if is_custom(name):
        return custom(name, weights)
    path = weights_path(name, weights)
    if path.is_dir() and name not in DETECTORS and not native(checkpoint.read_config(path)):
        adapter = importlib.import_module("refinebox.adapters.transformers")
        detector: Detector = adapter.load(path, name if is_hub_id(name) else path.name)
        return detector
    state, metadata, meta = checkpoint.read_all(path, ema)
    if metadata and metadata.get("kind") != "detector":
        raise ValueError(f"{path} holds a {metadata.get('kind')}, expected a detector")
    if metadata:
        return build(state, profile_from(metadata.get("detector", {}), str(path)), str(path))
    layouts = importlib.import_module("refinebox.adapters.layouts.recognise")
    state, layout = layouts.to_authors(state)
    entry = DETECTORS.get(name)
    config = checkpoint.read_config(path) if layout == "transformers" else {}
    if entry is None and not config:
        raise ValueError(f"{path} does not say which detector it is; name one and pass the file with --weights")
    if entry is None:
        profile = Profile(path.name, layouts.family_of(state), input=input_of(layout), layout=layout)
    else:
        profile = entry.profile(name, layout)
    if layout.startswith("mmdet"):
        profile = with_meta(meta, profile)
    if config:
        reader = importlib.import_module("refinebox.adapters.layouts.transformers_config")
        profile = reader.read(config, profile, checkpoint.read_preprocessor(path))
    return build(state, profile, str(path))


def load_given(
    features: str | None,
    weights: str | Path | None = None,
    results: Path | None = None,
    *,
    ema: bool | None = None,
) -> Given:
    """A detector that takes the boxes of a results file; arguments and errors as for :func:`load_detector`."""
    if features is None:
        raise ValueError(
            "a results file has boxes and no features; name what gives them with --features (features=): a detector, "
            "torchvision:resnet50, or timm:NAME"
        )
    if results is not None and not results.is_file():
        raise FileNotFoundError(f"no results file at {results}; check the path")
    source = load_features(features, weights, ema=ema)
    return Given(source, describe(source), results)


def load_features(name: str, weights: str | Path | None = None, *, ema: bool | None = None) -> Detector:
    """A frozen detector of which only features are wanted; a backbone alone does.

    Raises:
        ValueError, FileNotFoundError, ConnectionError: as :func:`load_detector`, which finds everything else.
    """
    library, _, model = name.partition(":")
    bare = importlib.import_module(f"refinebox.adapters.{BARE}")
    if not bare.is_backbone(library, model):
        return load_detector(name, weights, ema=ema)
    state = None if weights is None else checkpoint.read(Path(weights), ema)[0]
    backbone: Detector = bare.build(state, bare.profile(library, model))
    return backbone


def with_meta(meta: Mapping[str, Any], profile: Profile) -> Profile:
    """``profile`` with what a checkpoint of mmdetection says of itself; COCO's categories get COCO's ids."""
    layout = importlib.import_module("refinebox.adapters.layouts.mmdet_meta")
    profile = layout.read(meta, profile)
    names = layout.names_in(meta)
    if names == tuple(COCO_NAMES.values()):
        return replace(profile, category_ids=tuple(COCO_NAMES), category_names=COCO_NAMES)
    return replace(profile, category_ids=tuple(range(len(names))), category_names=dict(enumerate(names)))


def weights_path(name: str, weights: str | Path | None = None) -> Path:
    """The file or folder that :func:`load_detector` reads for the same arguments, downloaded if need be.

    Raises:
        ValueError: the name is unknown.
        FileNotFoundError: the weights must be fetched by hand; the message says from where and where to put them.
        ConnectionError: the weights could not be downloaded.
    """
    entry = DETECTORS.get(name)
    if entry is None and not is_hub_id(name) and not name.endswith(".safetensors") and not Path(name).is_dir():
        raise ValueError(
            f"unknown detector {name!r}{nearest(name)}; known: {', '.join(DETECTORS)}, the path of a .safetensors file "
            "or of a transformers folder, organisation/name of the Hugging Face hub, "
            f"{':NAME, '.join(LIBRARIES)}:NAME, or package.module:function"
        )
    if weights is not None:
        return Path(weights)
    if is_hub_id(name):
        return hub.folder(name)
    if entry is None:
        return Path(name)
    if entry.bundled:
        return entry.bundled
    file = entry.file(name)
    if file is not None:
        return fetch(file)
    if cached(name).is_file():
        return cached(name)
    raise FileNotFoundError(
        f"the weights of {name} have no address of their own; get them from {entry.source} and put the file at "
        f"{cached(name)}, or pass it as weights (--weights FILE)"
    )


def nearest(name: str) -> str:
    """The known name that a mistyped one may have meant, as a question; nothing where none is near."""
    near = get_close_matches(name, DETECTORS, n=1)
    return f" (did you mean {near[0]}?)" if near else ""


def weights_file(name: str, weights: str | Path | None = None) -> Path | None:
    """:func:`weights_path` where there is one: code of one's own and libraries keep their weights where they like."""
    if is_custom(name):
        return None
    if name.partition(":")[0] in LIBRARIES:
        return None if weights is None else Path(weights)
    return weights_path(name, weights)


def is_custom(name: str) -> bool:
    """Whether a name is ``package.module:function`` rather than one of the table, of a library or a path."""
    module, colon, function = name.partition(":")
    written = function.isidentifier() and all(part.isidentifier() for part in module.split("."))
    return bool(colon) and written and module not in LIBRARIES


def custom(name: str, weights: str | Path | None = None) -> Detector:
    """What ``function(weights)``, or ``function()`` without weights, of ``package.module:function`` returns.

    Modules are looked for where Python looks, and in the current folder.

    Raises:
        ValueError: there is no such module or function, or it returns something else than a :class:`Detector`.
    """
    module_name, _, function_name = name.partition(":")
    path = list(sys.path)
    sys.path.append(os.getcwd())
    try:
        function: Callable[..., Detector] = getattr(importlib.import_module(module_name), function_name)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"{name} cannot be imported ({error}); expected package.module:function") from error
    finally:
        sys.path[:] = path
    detector = function() if weights is None else function(weights)
    if not isinstance(detector, Detector):
        raise ValueError(
            f"{name} returned a {type(detector).__name__}, expected a refinebox.Detector; see docs/adapters.md"
        )
    detector.profile = replace(detector.profile, family=name)
    return detector


def build(state: Mapping[str, Tensor], profile: Profile, where: str) -> Detector:
    """The detector of ``profile.family`` with the tensors of ``state``; ``where`` names the file in messages.

    Raises:
        ValueError: the tensors belong to another family, or to none.
    """
    if profile.family in (*LIBRARIES, "transformers", BARE):
        detector: Detector = importlib.import_module(f"refinebox.adapters.{profile.family}").build(state, profile)
        return detector
    family = importlib.import_module("refinebox.adapters.layouts.recognise").family_of(state)
    if family is None:
        raise ValueError(f"{where} is no DETR-like checkpoint; its first tensors are {', '.join(list(state)[:3])}")
    if family != profile.family:
        raise ValueError(
            f"{where} is a {family} checkpoint, but {profile.name} is {profile.family}; name a detector of that family"
        )
    detector = importlib.import_module(f"refinebox.adapters.{family}").build(state, profile)
    return detector
