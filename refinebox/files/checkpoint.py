"""Files of tensors: our safetensors, written whole or not at all, and foreign ``.pth``, read without running code."""

import glob
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError, safe_open

from refinebox.files.download import sha256_of
from refinebox.progress import tell

if TYPE_CHECKING:  # torch takes seconds and 0.7 GB, and who writes a report or hashes a file needs none of it
    from torch import Tensor

METADATA_KEY = "refinebox"  # our JSON inside a safetensors file's string-to-string metadata


def read(path: Path, ema: bool | None = None) -> tuple[dict[str, "Tensor"], dict[str, Any]]:
    """The tensors of a checkpoint, on the CPU, and refinebox's metadata (empty for a file that others wrote).

    The format is told from the content: safetensors, or a pickle, whose tensors are taken out of what training
    programs wrap them in. ``path`` may also be an index of shards, or a folder that transformers wrote.

    Args:
        path: the file or folder.
        ema: of two sets of weights, whether to take the moving average; by default yes, and it is told.

    Raises:
        FileNotFoundError: there is no such file, or a shard is missing.
        ValueError: the file is damaged, holds no tensors or not those that ``ema`` asks for, or is a pickle that could
            run code; the message says which.
    """
    return read_all(path, ema)[:2]


def read_all(path: Path, ema: bool | None = None) -> tuple[dict[str, "Tensor"], dict[str, Any], dict[str, Any]]:
    """As :func:`read`, and what a checkpoint of mmdetection holds as ``meta`` beside its tensors; empty for others."""
    from refinebox.files import pickled, unwrap

    if path.is_dir():
        folder, path = path, weights_in(path)
        if path.parent != folder:
            tell(f"{folder}: took {path.parent.name}")
    if not path.is_file():
        raise FileNotFoundError(f"no checkpoint at {path}; check the path")
    if path.name.endswith(".index.json"):
        return _read_shards(path), {}, {}
    content, metadata = _read_safetensors(path) if _is_safetensors(path) else (pickled.load(path), {})
    tensors, meta = content, content.get("meta") if isinstance(content, dict) else None
    if not metadata:  # of another program
        try:
            tensors, taken = unwrap.model_in(content, ema)
        except ValueError as error:
            raise ValueError(f"{path} {error}") from error
        if taken:
            tell(f"{path}: took {taken}")
    if not tensors:
        raise ValueError(f"{path} holds no tensors; expected a checkpoint")
    return tensors, metadata, dict(meta) if isinstance(meta, Mapping) else {}


def read_metadata(path: Path) -> dict[str, Any]:
    """refinebox's metadata in a file, without its tensors; empty for a file that others wrote."""
    if not path.is_file() or not _is_safetensors(path):
        return {}
    with _opened(path) as file:
        return _metadata(file)


def read_config(path: Path) -> dict[str, Any]:
    """``config.json`` and ``preprocessor_config.json`` beside a checkpoint or in its folder, in one; may be empty.

    Raises:
        ValueError: a file is not JSON; the message names it.
    """
    return read_preprocessor(path) | _read_beside(path, "config.json")


def read_preprocessor(path: Path) -> dict[str, Any]:
    """``preprocessor_config.json`` alone, as :func:`read_config` finds it."""
    return _read_beside(path, "preprocessor_config.json")


def _read_beside(path: Path, name: str) -> dict[str, Any]:
    folder = path if path.is_dir() else path.parent
    if path.is_dir() and not (folder / name).is_file():
        folder = _step_in(path) or path
    return _read_json(folder / name) if (folder / name).is_file() else {}


def write(path: Path, tensors: Mapping[str, "Tensor"], metadata: Mapping[str, Any]) -> None:
    """Writes a safetensors file that :func:`read` returns unchanged. A failed write leaves the old file as it was."""
    import safetensors.torch

    # cloned, because safetensors refuses tensors that share memory
    tensors = {name: tensor.detach().cpu().clone().contiguous() for name, tensor in tensors.items()}
    remove_leftovers(path)
    write_bytes(path, safetensors.torch.save(tensors, {METADATA_KEY: json.dumps(metadata)}))


def write_bytes(path: Path, data: bytes) -> None:
    """Writes ``data`` beside ``path`` and renames it into place, so that ``path`` is always whole.

    Raises:
        OSError: the folder cannot be written or the disk is full; the message says so, and nothing is left behind.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _write_beside(path, data)
    except OSError as error:
        raise OSError(
            f"could not write {path} ({error.strerror or error}), so what stood there is unchanged; make room or name "
            "a folder that can be written, and repeat the command, a training with --resume"
        ) from error


def _write_beside(path: Path, data: bytes) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        with suppress(OSError):  # which says less than what went wrong before
            temporary.unlink()
        raise


def remove_leftovers(path: Path) -> None:
    """Removes what writers of ``path`` that were killed left beside it."""
    for leftover in path.parent.glob(f".{glob.escape(path.name)}.*"):
        if leftover.suffix[1:].isdecimal():
            leftover.unlink(missing_ok=True)


def write_json(path: Path, content: Any) -> None:
    """Writes readable JSON, whole or not at all."""
    write_bytes(path, (json.dumps(content, indent=2) + "\n").encode())


def file_sha256(path: Path) -> str:
    """Hexadecimal SHA-256 of a file's bytes; of a folder's checkpoint; of the shards' hashes where it is in shards."""
    path = weights_in(path) if path.is_dir() else path
    if path.name.endswith(".index.json"):
        return hashlib.sha256("".join(map(file_sha256, _shards_in(path))).encode()).hexdigest()
    return sha256_of(path)


def tensors_sha256(tensors: Mapping[str, "Tensor"]) -> str:
    """Hexadecimal SHA-256 of names, types, shapes and values: the same whatever file format they come from."""
    import torch

    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)} ".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _read_json(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_bytes()))
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path} is damaged ({error}); copy or download it again") from error


def weights_in(folder: Path) -> Path:
    """The checkpoint in a folder that transformers wrote; of a training's, that of its best or else its last step.

    Raises:
        FileNotFoundError: there is none; the message says what was expected, and what is there.
    """
    names = [f"{name}{index}" for name in ("model.safetensors", "pytorch_model.bin") for index in ("", ".index.json")]
    for name in names:
        if (folder / name).is_file():
            return folder / name
    step = _step_in(folder)
    if step is not None:
        return weights_in(step)
    raise FileNotFoundError(f"{folder} holds no checkpoint; expected one of {', '.join(names)}")


def _step_in(folder: Path) -> Path | None:
    """The folder of a training's best step, or else of its last; None where there are none."""
    steps = {path: int(path.name.partition("-")[2]) for path in folder.glob("checkpoint-*") if _is_step(path)}
    if not steps:
        return None
    last = max(steps, key=lambda path: steps[path])
    best = Path(str(_best_of(last))).name
    return next((path for path in steps if path.name == best), last)


def _is_step(path: Path) -> bool:
    return path.is_dir() and path.name.partition("-")[2].isdecimal()


def _best_of(step: Path) -> Any:
    """The folder of the best step, as the training wrote it down; None where it did not."""
    state = step / "trainer_state.json"
    return _read_json(state).get("best_model_checkpoint") if state.is_file() else None


def _shards_in(index: Path) -> list[Path]:
    return [index.with_name(name) for name in sorted(set(_weight_map(index).values()))]


def _weight_map(index: Path) -> dict[str, str]:
    """The shard of every tensor."""
    names = _read_json(index).get("weight_map")
    if not isinstance(names, dict) or not names or any(Path(str(name)).name != name for name in names.values()):
        raise ValueError(f"{index} is no index of shards; expected the file name of every tensor under 'weight_map'")
    return names


def _read_shards(index: Path) -> dict[str, "Tensor"]:
    tensors = {key: tensor for shard in _shards_in(index) for key, tensor in read(shard)[0].items()}
    missing = [name for name in _weight_map(index) if name not in tensors]
    if missing:
        raise ValueError(f"{index} lists {missing[0]}, which no shard holds; copy or download the shards again")
    return tensors


def _is_safetensors(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(9)[8:] == b"{"


def _read_safetensors(path: Path) -> tuple[dict[str, "Tensor"], dict[str, Any]]:
    with _opened(path) as file:
        return {name: file.get_tensor(name) for name in file.keys()}, _metadata(file)  # noqa: SIM118


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """An open safetensors file; whatever is wrong with it is said in one line."""
    try:
        with safe_open(path, framework="pt") as file:
            yield file
    except (SafetensorError, ValueError) as error:
        raise ValueError(f"{path} is damaged or incomplete ({error}); copy or download it again") from error


def _metadata(file: Any) -> dict[str, Any]:
    found = json.loads((file.metadata() or {}).get(METADATA_KEY, "{}"))
    if not isinstance(found, dict):
        raise ValueError(f"its metadata is {str(found)[:40]}, expected a JSON object")
    return found


@contextmanager
def understood(where: str | Path) -> Iterator[None]:
    """Around what reads the metadata of a file: what lacks there, or is something else, is said in one line.

    Raises:
        ValueError: instead of what Python raises where a value is missing or of another type.
    """
    try:
        yield
    except (KeyError, TypeError, AttributeError, IndexError) as error:
        raise ValueError(
            f"{where} says of itself what this version cannot read ({type(error).__name__}: {error}); write the file "
            "again, or update refinebox"
        ) from error
