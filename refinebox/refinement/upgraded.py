"""Turn a checkpoint into an upgraded one: detector and refiner in one file, which :func:`load` runs."""

from collections.abc import Mapping
from dataclasses import asdict, replace
from operator import index
from pathlib import Path
from typing import Any

from torch import Tensor

from refinebox.detection import given
from refinebox.detection.detector import Detector
from refinebox.detection.profile import Profile
from refinebox.detection.published import DETECTORS, refiner_file
from refinebox.detection.tensors import load_tensors
from refinebox.detection.voting import LEAST_OVERLAP
from refinebox.detection.zoo import build, custom, describe, is_custom, load_detector, load_given, profile_from
from refinebox.files import checkpoint, hub, place
from refinebox.files.download import fetch
from refinebox.refinement.change import change, decided, deciding
from refinebox.refinement.exported import open_exported
from refinebox.refinement.refined_detector import RefinedDetector
from refinebox.refinement.refiner_file import build_refiner, load_refiner_and_history

KIND = "upgraded detector"


def apply(
    detector: Detector,
    detector_file: Path | None,
    refiner_file: Path | None,
    output: Path,
    *,
    voting: bool = False,
    force: bool = False,
) -> dict[str, Any]:
    """Writes the upgraded detector to ``output`` and returns the metadata that the file carries.

    Args:
        detector: the frozen detector,
        detector_file: and the file or folder it was read from; None for one that a function built.
        refiner_file: a refiner that ``refinebox train`` wrote, or a published one; None for ``voting`` alone.
        output: the safetensors file to write.
        voting: let the candidates that suppression drops move what it keeps, which needs no training; it is so anyway
            where the held-out images of the refiner's training said that it pays.
        force: upgrade although the refiner belongs to other weights, or made validation AP worse.

    Raises:
        ValueError: the refiner does not fit, and ``force`` is not given where it could help; or there is nothing to
            apply, or no suppression in which to vote.
        OSError: ``output`` is a folder, or cannot be written.
    """
    place.check_file(output, ".safetensors file")
    model, history = join(detector, refiner_file, voting=voting, force=force)
    return write(model, history, detector_file, refiner_file, output)


def join(
    detector: Detector, refiner_file: Path | None, *, voting: bool = False, force: bool = False
) -> tuple[Detector, dict[str, Any]]:
    """The upgraded detector, which shares the tensors of ``detector``, and what the refiner's file says.

    Arguments and errors are those of :func:`apply`. ``detector`` itself is changed: it votes, has the refiner's input
    size, and knows the names of its categories.
    """
    if voting:
        let_vote(detector)
    if refiner_file is None:
        if not voting:
            raise ValueError("there is nothing to apply; name a --refiner, or pass --voting")
        return detector, {}
    refiner, history = load_refiner_and_history(refiner_file)
    choice = history.get("choice") or {}
    if choice.get("vote") and choice["refine"] and not detector.profile.final.voting:  # judged for these boxes
        let_vote(detector)
    model = RefinedDetector(detector, refiner)
    if not force:
        check_history(history, detector, refiner_file)
    if not detector.profile.input.fixed:  # the input size that the refiner learned at
        model.resize(history.get("short_side"), history.get("long_side"))
    model.name_categories(history.get("asked") or history.get("categories") or [])
    return model, history


def write(
    model: Detector, history: Mapping[str, Any], detector_file: Path | None, refiner_file: Path | None, output: Path
) -> dict[str, Any]:
    """Writes what :func:`join` gives; the metadata that the file carries."""
    if not isinstance(model, RefinedDetector) or refiner_file is None:
        metadata = {
            "kind": "detector",
            "detector": describe(model),
            "sources": {"detector": detector_source(model, detector_file)},
            "before": None,
            "after": None,
        }
        checkpoint.write(output, model.tensors(), metadata)
        return metadata
    detector, refiner = model.detector, model.refiner
    metadata = {
        "kind": KIND,
        "detector": describe(detector),
        "refiner": {
            "strides": refiner.strides,
            "steps": refiner.steps,
            "architecture": asdict(refiner.architecture),
            "top": model.top,
            "settings": history.get("settings"),
        },
        "sources": {"detector": detector_source(detector, detector_file), "refiner": source(refiner_file)},
        **{name: history.get(name) for name in ("before", "clipped", "after", "choice", "data")},
    }
    tensors = {f"detector.{name}": tensor for name, tensor in detector.tensors().items()}
    tensors |= {f"refiner.{name}": tensor for name, tensor in refiner.state_dict().items()}
    checkpoint.write(output, tensors, metadata)
    return metadata


def let_vote(detector: Detector) -> None:
    """Has the detector's final choice vote.

    Raises ValueError where nothing is suppressed, so that no candidates are left over.
    """
    final = detector.profile.final
    if final.rule != "suppression":
        raise ValueError(
            f"{detector.profile.name} drops no candidates, so none can vote; leave out --voting, which is for "
            "detectors that end in suppression"
        )
    detector.profile = replace(detector.profile, choice=replace(final, voting=LEAST_OVERLAP))


def detector_source(detector: Detector, path: Path | None) -> dict[str, str | None]:
    """Where the frozen detector came from."""
    return source(path) if path else {"file": None, "sha256": detector.weights_sha256()}


def source(path: Path) -> dict[str, str | None]:
    """Name and SHA-256 of a file that went into an upgraded checkpoint."""
    return {"file": path.name, "sha256": checkpoint.file_sha256(path)}


def published_refiner(name: str, weights: Path | None, *, force: bool = False) -> Path:
    """The file of the published refiner for a detector of the table, downloaded if need be.

    Raises:
        ValueError: there is none; or ``weights`` cannot be told to be those it was trained on, and ``force`` is not
            given.
        ConnectionError: it could not be downloaded.
    """
    file, entry = refiner_file(name), DETECTORS[name]
    same = weights is None or (entry.sha256 and checkpoint.file_sha256(weights).startswith(entry.sha256))
    if not same and not force:
        raise ValueError(
            f"the published refiner fits only the published weights ({entry.source}), and {weights} cannot be told to "
            "be these; leave out --weights, train a refiner of your own, or pass --force"
        )
    return fetch(file)


def check_history(history: dict[str, Any], detector: Detector, refiner_file: Path) -> None:
    """Raises ValueError for a refiner of other weights, or of which is known that it makes boxes worse."""
    trained_on = history.get("detector_sha256")
    if trained_on not in (None, detector.weights_sha256()):
        raise ValueError(
            f"{refiner_file} was trained on other weights ({history['detector']}, sha256 {trained_on[:12]}) than these "
            f"({detector.profile.name}, sha256 {detector.weights_sha256()[:12]}); train one on these, or pass --force"
        )
    free = history.get("clipped") or history.get("before")  # what the detector has without the refiner
    before, after = ((stage or {}).get("AP") for stage in (free, history.get("after")))
    if before is not None and after is not None and after < before:
        raise ValueError(
            f"{refiner_file} made validation AP worse, {change(before, after)}; "
            "train it longer or on more images, or pass --force"
        )
    choice = history.get("choice")
    if choice is not None and not choice["refine"]:
        raise ValueError(
            f"{refiner_file} is not worth applying: {deciding(choice)} say {decided(choice)}; "
            f"{'leave out --refiner and pass --voting, which pays there, ' if choice.get('vote') else ''}"
            "train it longer or on more images, or pass --force"
        )


def load(path: str | Path, builder: str | None = None) -> Detector:
    """The detector in a file that refinebox wrote: upgraded (a :class:`RefinedDetector`) or plain.

    Args:
        path: the file.
        builder: ``package.module:function`` that builds the detector, where it is none of refinebox's own. A file
            alone never makes code run.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged or something else, or its detector needs another ``builder``.
    """
    path = hub.local(path)
    tensors, metadata = checkpoint.read(path)
    if metadata.get("kind") not in (KIND, "detector"):
        raise ValueError(
            f"{path} holds {metadata.get('kind', 'no refinebox detector')}; expected what refinebox apply wrote"
        )
    profile = profile_from(metadata.get("detector", {}), str(path))
    if metadata["kind"] == "detector":
        return restored(tensors, profile, builder, str(path))
    parts: dict[str, dict[str, Tensor]] = {"detector": {}, "refiner": {}}
    with checkpoint.understood(path):
        about, top = metadata["refiner"], index(metadata["refiner"]["top"])
        for name, tensor in tensors.items():
            part, _, rest = name.partition(".")
            parts[part][rest] = tensor
    refiner = build_refiner(parts["refiner"], about, str(path))
    detector = restored(parts["detector"], profile, builder, str(path))
    model = RefinedDetector(detector, refiner, top)
    model.history = {name: metadata.get(name) or {} for name in ("data", "choice")}
    return model


def restored(tensors: dict[str, Tensor], profile: Profile, builder: str | None, where: str) -> Detector:
    """The detector with the tensors of a file, by its adapter or by the user's own function."""
    if profile.family == given.FAMILY:
        described = profile.settings["features"]
        source = restored(tensors, profile_from(described, where), builder, where)
        source.reformat(profile.input)
        return given.Given(source, described, category_ids=profile.category_ids, category_names=profile.category_names)
    return rebuild(tensors, profile, builder, where) if is_custom(profile.family) else build(tensors, profile, where)


def rebuild(tensors: dict[str, Tensor], profile: Profile, builder: str | None, where: str) -> Detector:
    """A detector of the user's own, built by the function that the user names, with the tensors of the file."""
    if builder != profile.family:
        raise ValueError(
            f"the detector in {where} is built by {profile.family}; pass that name as the detector and the file with "
            "--weights, which runs that code"
        )
    detector = custom(builder)
    names = {name.removeprefix("network."): name for name in detector.state_dict()}
    load_tensors(detector, {names.get(name, name): tensor for name, tensor in tensors.items()}, where)
    detector.reformat(profile.input)
    detector.profile = replace(detector.profile, choice=profile.choice)
    return detector


def open_model(
    name: str | None, weights: Path | None = None, ema: bool | None = None, features: str | None = None
) -> Detector:
    """What a user means by a detector's name and perhaps a file: a detector, an upgraded or an exported one.

    With ``features`` instead of a name it is one that takes its boxes from a results file.

    Raises:
        ValueError: neither or both are named; or the errors of :func:`load` and :func:`load_detector`.
    """
    if name is None and features is None:
        raise ValueError(
            "name a detector with --detector, or what gives features to the boxes of a results file with --features: a "
            "detector, torchvision:resnet50, or timm:NAME"
        )
    if name is None:
        return load_given(features, weights, ema=ema)
    if features is not None:
        raise ValueError(f"{name} has features of its own; leave out --features {features}, or the detector")
    file = hub.local(name) if hub.is_id(name) else Path(name)
    name = str(file) if file.is_file() else name
    weights = None if weights is None else hub.local(weights)
    if weights is None and name.endswith(".onnx"):
        return open_exported(Path(name))
    if weights is None and name.endswith(".pt2") and file.is_file():
        raise ValueError(
            f"{name} is a program of torch's, which refinebox does not run; name an .onnx file, or the checkpoint that "
            "it was exported from"
        )
    if weights is None and name.endswith(".safetensors"):
        return load(name)
    if weights is not None and is_custom(name) and checkpoint.read_metadata(weights).get("kind") == KIND:
        return load(weights, name)
    return load_detector(name, weights, ema=ema)
