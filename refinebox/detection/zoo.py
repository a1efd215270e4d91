"""How a name or a file becomes a frozen detector."""

import importlib
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from refinebox.data.input_format import InputFormat
from refinebox.detection.choice import Choice
from refinebox.detection.detector import Detector
from refinebox.detection.given import Given
from refinebox.detection.profile import Profile
from refinebox.detection.published import DETECTORS, cached
from refinebox.files import checkpoint
from refinebox.files.download import fetch

RESULTS = "results:"
BARE = "bare_backbone"  # the family of those that find nothing


def load_detector(name: str, weights: str | Path | None = None, features: str | None = None) -> Detector:
    """A frozen detector.

    Args:
        name: a name of the table (``refinebox detectors`` lists them); the path of a detector file of ours or of a
            folder that transformers wrote; ``package.module:function`` for a function that returns a
            :class:`Detector` and is called with ``weights`` where they are given; or ``results:FILE`` for the boxes of
            a COCO results file.
        weights: the checkpoint, in the authors', detrex's or transformers' layout (a file, an index of shards or a
            folder); by default the published one, which is downloaded once.
        features: what gives the feature maps for boxes of a file: a detector's name as above, ``torchvision:NAME`` or
            ``timm:NAME`` for a backbone; ``weights`` are then its own.

    Raises:
        ValueError: the name is unknown, or the checkpoint is damaged, unsafe, incomplete or of another family.
        FileNotFoundError: there is no file at the path, or the weights must be fetched by hand.
        ConnectionError: the weights could not be downloaded.
    """
    if name.startswith(RESULTS):
        return load_given(features, weights, Path(name.removeprefix(RESULTS)))
    if features is not None:
        raise ValueError(f"{name} has features of its own; leave out {features}, or name results:FILE with it")
    if is_custom(name):
        return custom(name, weights)
    path = weights_path(name, weights)
    state, metadata = checkpoint.read(path)
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
    family = entry.family if entry else layouts.family_of(state)
    profile = Profile(
        name if entry else path.name,
        family,
        input=InputFormat(rounding=layout),
        layout=layout,
        settings=entry.settings if entry else {},
    )
    if config:
        profile = importlib.import_module("refinebox.adapters.layouts.transformers_config").read(config, profile)
    return build(state, profile, str(path))


def load_given(features: str | None, weights: str | Path | None = None, results: Path | None = None) -> Given:
    """A detector that takes the boxes of a results file; arguments and errors as for :func:`load_detector`."""
    if features is None:
        raise ValueError(
            "a results file has boxes and no features; name what gives them with --features (features=): a detector, "
            "torchvision:resnet50, or timm:NAME"
        )
    if results is not None and not results.is_file():
        raise FileNotFoundError(f"no results file at {results}; check the path")
    source = load_features(features, weights)
    return Given(source, describe(source), results)


def load_features(name: str, weights: str | Path | None = None) -> Detector:
    """A frozen detector of which only features are wanted; a backbone alone does.

    Raises:
        ValueError, FileNotFoundError, ConnectionError: as :func:`load_detector`, which finds everything else.
    """
    library, _, model = name.partition(":")
    bare = importlib.import_module(f"refinebox.adapters.{BARE}")
    if not bare.is_backbone(library, model):
        return load_detector(name, weights)
    state = None if weights is None else checkpoint.read(Path(weights))[0]
    backbone: Detector = bare.build(state, bare.profile(library, model))
    return backbone


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
            f"unknown detector {name!r}; known: {', '.join(DETECTORS)}, the path of a .safetensors file or of a "
            "transformers folder, or package.module:function"
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
    layouts = importlib.import_module("refinebox.adapters.layouts.recognise")
    family = BARE if profile.family == BARE else layouts.family_of(state)  # a backbone's tensors tell little
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
