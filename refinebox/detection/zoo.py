"""How a name or a file becomes a frozen detector."""

import importlib
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from torch import Tensor

from refinebox.data.categories import COCO_NAMES
from refinebox.data.input_format import InputFormat
from refinebox.detection.choice import Choice
from refinebox.detection.detector import Detector
from refinebox.detection.entry import cached, input_of
from refinebox.detection.profile import Profile
from refinebox.detection.published import DETECTORS
from refinebox.files import checkpoint
from refinebox.files.download import fetch


def load_detector(name: str, weights: str | Path | None = None, *, ema: bool | None = None) -> Detector:
    """A frozen detector.

    Args:
        name: a name of the table (``refinebox detectors`` lists them); the path of a detector file of ours or of a
            folder that transformers wrote; or ``package.module:function`` for a function that returns a
            :class:`Detector` and is called with ``weights`` where they are given.
        weights: the checkpoint, in the authors', detrex's, mmdetection's or transformers' layout (a file, an index of
            shards or a folder); by default the published one, which is downloaded once.
        ema: of a checkpoint with two sets of weights, whether to take the moving average; by default yes.

    Raises:
        ValueError: the name is unknown, or the checkpoint is damaged, unsafe, incomplete or of another family.
        FileNotFoundError: there is no file at the path, or the weights must be fetched by hand.
        ConnectionError: the weights could not be downloaded.
    """
    if is_custom(name):
        return custom(name, weights)
    path = weights_path(name, weights)
    state, metadata = checkpoint.read(path, ema)
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
        profile = with_meta(checkpoint.read_meta(path), profile)
    if config:
        reader = importlib.import_module("refinebox.adapters.layouts.transformers_config")
        profile = reader.read(config, profile, checkpoint.read_preprocessor(path))
    return build(state, profile, str(path))


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
    if entry is None and not name.endswith(".safetensors") and not Path(name).is_dir():
        raise ValueError(
            f"unknown detector {name!r}{nearest(name)}; known: {', '.join(DETECTORS)}, the path of a .safetensors file "
            "or of a transformers folder, or package.module:function"
        )
    if weights is not None:
        return Path(weights)
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


def is_custom(name: str) -> bool:
    """Whether a name is ``package.module:function`` rather than one of the table or a path."""
    module, colon, function = name.partition(":")
    return bool(colon) and function.isidentifier() and all(part.isidentifier() for part in module.split("."))


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
    family = importlib.import_module("refinebox.adapters.layouts.recognise").family_of(state)
    if family is None:
        raise ValueError(f"{where} is no DETR-like checkpoint; its first tensors are {', '.join(list(state)[:3])}")
    if family != profile.family:
        raise ValueError(
            f"{where} is a {family} checkpoint, but {profile.name} is {profile.family}; name a detector of that family"
        )
    adapter = importlib.import_module(f"refinebox.adapters.{family}")
    detector: Detector = adapter.build(state, profile)
    return detector


def describe(detector: Detector) -> dict[str, Any]:
    """What a file must say beside a detector's tensors so that it can be built again."""
    profile = detector.profile
    return {
        "name": profile.name,
        "family": profile.family,
        "layout": profile.layout,
        "classification": profile.classification,
        "categories": [{"id": i, "name": detector.category_names.get(i)} for i in detector.category_ids],
        "input": asdict(profile.input),
        "choice": profile.choice and asdict(profile.choice),
        "settings": dict(profile.settings),
    }


def profile_from(description: Mapping[str, Any], where: str) -> Profile:
    """The inverse of :func:`describe`; ``where`` names the file in messages.

    Raises:
        ValueError: something is missing from the description.
    """
    try:
        categories = description["categories"]
        return Profile(
            name=description["name"],
            family=description["family"],
            layout=description.get("layout", "authors"),  # files of version 0.1.0 know no other
            classification=description["classification"],
            category_ids=tuple(category["id"] for category in categories),
            category_names={category["id"]: category["name"] for category in categories if category["name"]},
            input=input_format(description),
            choice=Choice(**description["choice"]) if description.get("choice") else None,
            settings=description["settings"],
        )
    except KeyError as error:
        raise ValueError(f"{where} does not say the {error} of its detector; write the file again") from error


def input_format(description: Mapping[str, Any]) -> InputFormat:
    """The input format of a :func:`describe`; files of version 0.1.0 know two sides and a layout alone."""
    if "input" not in description:
        sides = description["short_side"], description["long_side"]
        return InputFormat("shortest", *sides, rounding=description.get("layout", "authors"))
    fields = dict(description["input"])
    return InputFormat(**{**fields, "mean": tuple(fields["mean"]), "std": tuple(fields["std"])})
