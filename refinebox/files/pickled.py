"""Foreign pickles, read without running code: tensors, and what training programs keep beside them."""

import argparse
import datetime
import pickle
import re
import zipfile
from collections.abc import Sequence
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import numpy as np
import torch

NUMPY_SCALAR = np.float64(0).__reduce__()[0]  # numpy's own constructors, whose module moved in version 2
NUMPY_ARRAY = np.zeros(0).__reduce__()[0]
NUMBERS = ("float16", "float32", "float64", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")


def dictionary(*_: object) -> dict[Any, Any]:
    """What stands in for a default dictionary, which torch does not fill."""
    return {}


# what training checkpoints hold beside tensors; none of it can carry code
HARMLESS: list[Any] = [
    argparse.Namespace,
    (dictionary, "collections.defaultdict"),
    *(datetime.datetime, datetime.date, datetime.time, datetime.timedelta, datetime.timezone),
    *(int, float, bool, str, list, dict, tuple),  # that default dictionaries begin with
    *((PurePosixPath, f"{module}.PosixPath") for module in ("pathlib", "pathlib._local")),
    *((PureWindowsPath, f"{module}.WindowsPath") for module in ("pathlib", "pathlib._local")),
    np.dtype,
    np.ndarray,
    *((NUMPY_SCALAR, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")),
    *((NUMPY_ARRAY, f"numpy.{core}.multiarray._reconstruct") for core in ("core", "_core")),
    *(type(np.dtype(name)) for name in (*NUMBERS, "bool")),
]

READABLE = 'in the program that trained it, torch.save(model.state_dict(), "weights.pth") writes one that is read'

PUBLISHED = (
    "in its environment, mmdetection's tools/model_converters/publish_model.py writes one that is read; where the "
    "configuration was pickled too, leave it out: torch.save({'state_dict': checkpoint['state_dict']}, 'weights.pth')"
)


def of_openmmlab(names: Sequence[str]) -> bool:
    """Whether the classes of a pickle are those of mmdetection and what it is built on."""
    return names[0].partition(".")[0] in ("mmengine", "mmcv", "mmdet")


def load(path: Path) -> Any:
    """The content of a file that ``torch.save`` wrote, on the CPU.

    Raises:
        ValueError: it is damaged, another kind of file, or could run code; the message says which, and the way out.
    """
    try:
        # an open file, because torch guesses the format of a path from its suffix
        with torch.serialization.safe_globals(HARMLESS), path.open("rb") as file:
            return torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged pickle can fail in any way
        kind = other_kind(path)
        if kind:
            raise ValueError(f"{path} is {kind}") from error
        forbidden = sorted(set(re.findall(r"(?:GLOBAL|allow:) ([\w.]+)", str(error))))
        if isinstance(error, pickle.UnpicklingError) and forbidden:
            raise ValueError(
                f"{path} was not opened: it holds {', '.join(forbidden)}, which could run code; "
                f"only checkpoints of plain tensors are read; {PUBLISHED if of_openmmlab(forbidden) else READABLE}"
            ) from error
        reason = f"{type(error).__name__}: {str(error).partition('. ')[0]}".splitlines()[0]
        raise ValueError(
            f"{path} is damaged, incomplete or no checkpoint ({reason}); copy or download it again"
        ) from error


def other_kind(path: Path) -> str | None:
    """What a file is that is no checkpoint of torch's, and what to do; None where nothing tells."""
    with path.open("rb") as file:
        head = file.read(4096)
    if path.suffix.casefold() == ".onnx" or (head[:1] == b"\x08" and re.search(rb"pytorch|onnx|tf2onnx", head[:64])):
        return "an ONNX model, which has no weights by name; pass the checkpoint that it was exported from"
    if head.startswith(b"\x89HDF"):
        return f"an HDF5 file, as Keras writes it; expected a PyTorch checkpoint: {READABLE}"
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
        if any(name.endswith("constants.pkl") for name in names):
            return f"a TorchScript archive, which is a program; {READABLE}"
        if any(name.endswith(".npy") for name in names):
            return f"an archive of numpy arrays; {NUMPY_WAY.format(load=f'numpy.load({path.name!r})')}"
    if head[:1] == b"\x80" and any(word in head for word in (b"numpy", b"ndarray")) and b"torch" not in head:
        load = f"pickle.load(open({path.name!r}, 'rb'))"
        return f"a pickle of numpy arrays; where you trust it, {NUMPY_WAY.format(load=load)}"
    return None


NUMPY_WAY = 'torch.save({{k: torch.as_tensor(v) for k, v in {load}.items()}}, "weights.pth") writes one that is read'
