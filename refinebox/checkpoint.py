"""Files of tensors: our safetensors, written whole or not at all, and foreign ``.pth``, read without running code."""

import argparse
import hashlib
import json
import os
import pickle
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

NUMPY_SCALAR = np.float64(0).__reduce__()[0]  # numpy's own constructor, whose module moved in version 2
# what training checkpoints of the DETR family hold beside tensors; none of it can carry code
HARMLESS: list[Any] = [
    argparse.Namespace,
    np.dtype,
    (NUMPY_SCALAR, "numpy.core.multiarray.scalar"),
    (NUMPY_SCALAR, "numpy._core.multiarray.scalar"),
    *(type(np.dtype(name)) for name in ("float16", "float32", "float64", "int32", "int64", "bool")),
]

METADATA_KEY = "refinebox"  # our JSON inside a safetensors file's string-to-string metadata


def read(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors of a checkpoint, on the CPU, and refinebox's metadata (empty for a file that others wrote).

    The format is told from the content: safetensors, or a ``.pth`` whose tensors stand at the top or under ``model``.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged, holds no tensors, or is a pickle that could run code; the message says which.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no checkpoint at {path}; check the path")
    with path.open("rb") as file:
        start = file.read(9)
    tensors, metadata = _read_safetensors(path) if start[8:] == b"{" else (_read_pickle(path), {})
    if not tensors:
        raise ValueError(f"{path} holds no tensors; expected a checkpoint")
    return tensors, metadata


def write(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> None:
    """Writes a safetensors file that :func:`read` returns unchanged. A failed write leaves the old file as it was."""
    # cloned, because safetensors refuses tensors that share memory
    tensors = {name: tensor.detach().cpu().clone().contiguous() for name, tensor in tensors.items()}
    write_bytes(path, safetensors.torch.save(tensors, {METADATA_KEY: json.dumps(metadata)}))


def write_bytes(path: Path, data: bytes) -> None:
    """Writes ``data`` beside ``path`` and renames it into place, so that ``path`` is always whole.

    Raises:
        OSError: the folder cannot be written or the disk is full; nothing is left behind.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_json(path: Path, content: Any) -> None:
    """Writes readable JSON, whole or not at all."""
    write_bytes(path, (json.dumps(content, indent=2) + "\n").encode())


def file_sha256(path: Path) -> str:
    """Hexadecimal SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def tensors_sha256(tensors: Mapping[str, Tensor]) -> str:
    """Hexadecimal SHA-256 of names, types, shapes and values: the same whatever file format they come from."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)} ".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    try:
        with safe_open(path, framework="pt") as file:
            metadata = dict(json.loads((file.metadata() or {}).get(METADATA_KEY, "{}")))
            return {name: file.get_tensor(name) for name in file.keys()}, metadata  # noqa: SIM118
    except (SafetensorError, ValueError) as error:
        raise ValueError(f"{path} is damaged or incomplete ({error}); copy or download it again") from error


def _read_pickle(path: Path) -> dict[str, Tensor]:
    try:
        # an open file, because torch guesses the format of a path from its suffix
        with torch.serialization.safe_globals(HARMLESS), path.open("rb") as file:
            content = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged pickle can fail in any way
        forbidden = sorted(set(re.findall(r"(?:GLOBAL|allow:) ([\w.]+)", str(error))))
        if isinstance(error, pickle.UnpicklingError) and forbidden:
            raise ValueError(
                f"{path} was not opened: it holds {', '.join(forbidden)}, which could run code; "
                "only checkpoints of plain tensors are read"
            ) from error
        reason = f"{type(error).__name__}: {str(error).partition('. ')[0]}".splitlines()[0]
        raise ValueError(
            f"{path} is damaged, incomplete or no checkpoint ({reason}); copy or download it again"
        ) from error
    state = content.get("model", content) if isinstance(content, dict) else content
    if not isinstance(state, dict) or not state or not all(isinstance(value, Tensor) for value in state.values()):
        raise ValueError(
            f"{path} holds no tensors by name, neither at the top nor under 'model'; expected a state dict"
        )
    return dict(state)
