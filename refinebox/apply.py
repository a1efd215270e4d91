"""Turn a checkpoint into an upgraded one: detector and refiner in one file, which :func:`load` runs."""

from pathlib import Path
from typing import Any

from torch import Tensor

from refinebox import checkpoint
from refinebox.detector import Detector
from refinebox.refiner import RefinedDetector, build_refiner, load_refiner_and_history
from refinebox.zoo import build, describe, profile_from

KIND = "upgraded detector"


def apply(
    detector: Detector, detector_file: Path, refiner_file: Path, output: Path, *, force: bool = False
) -> dict[str, Any]:
    """Writes the upgraded detector to ``output`` and returns the metadata that the file carries.

    Args:
        detector: the frozen detector,
        detector_file: and the file it was read from.
        refiner_file: a refiner that ``refinebox train`` wrote, or a published one.
        output: the safetensors file to write.
        force: upgrade although the refiner belongs to other weights, or made validation AP worse.

    Raises:
        ValueError: the refiner does not fit, and ``force`` is not given where it could help.
        IsADirectoryError: ``output`` is a folder.
    """
    if output.is_dir():
        raise IsADirectoryError(f"{output} is a folder; name the .safetensors file to write")
    refiner, history = load_refiner_and_history(refiner_file)
    model = RefinedDetector(detector, refiner)
    if not force:
        check_history(history, detector, refiner_file)
    detector.resize(history.get("short_side"), history.get("long_side"))  # the input size that the refiner learned at
    metadata = {
        "kind": KIND,
        "detector": describe(detector),
        "refiner": {
            "strides": refiner.strides,
            "steps": refiner.steps,
            "top": model.top,
            "settings": history.get("settings"),
        },
        "sources": {
            part: {"file": path.name, "sha256": checkpoint.file_sha256(path)}
            for part, path in (("detector", detector_file), ("refiner", refiner_file))
        },
        "before": history.get("before"),
        "after": history.get("after"),
    }
    tensors = {f"detector.{name}": tensor for name, tensor in detector.tensors().items()}
    tensors |= {f"refiner.{name}": tensor for name, tensor in refiner.state_dict().items()}
    checkpoint.write(output, tensors, metadata)
    return metadata


def check_history(history: dict[str, Any], detector: Detector, refiner_file: Path) -> None:
    """Raises ValueError for a refiner of other weights, or of which is known that it makes boxes worse."""
    trained_on = history.get("detector_sha256")
    if trained_on not in (None, detector.weights_sha256()):
        raise ValueError(
            f"{refiner_file} was trained on other weights ({history['detector']}, sha256 {trained_on[:12]}) than these "
            f"({detector.profile.name}, sha256 {detector.weights_sha256()[:12]}); train one on these, or pass --force"
        )
    before, after = ((history.get(stage) or {}).get("AP") for stage in ("before", "after"))
    if before is not None and after is not None and after < before:
        raise ValueError(
            f"{refiner_file} made validation AP worse ({before:.1f} → {after:.1f}); "
            "train it longer or on more images, or pass --force"
        )


def load(path: str | Path) -> Detector:
    """The detector in a file that refinebox wrote: upgraded (a :class:`RefinedDetector`) or plain.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged or something else.
    """
    path = Path(path)
    tensors, metadata = checkpoint.read(path)
    if metadata.get("kind") not in (KIND, "detector"):
        raise ValueError(
            f"{path} holds {metadata.get('kind', 'no refinebox detector')}; expected what refinebox apply wrote"
        )
    profile = profile_from(metadata.get("detector", {}), str(path))
    if metadata["kind"] == "detector":
        return build(tensors, profile, str(path))
    parts: dict[str, dict[str, Tensor]] = {"detector": {}, "refiner": {}}
    for name, tensor in tensors.items():
        part, _, rest = name.partition(".")
        parts[part][rest] = tensor
    refiner = build_refiner(parts["refiner"], metadata["refiner"], str(path))
    return RefinedDetector(build(parts["detector"], profile, str(path)), refiner, metadata["refiner"]["top"])
