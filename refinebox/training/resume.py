"""Everything that is needed to continue a training as if it had never stopped, in one safetensors file."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from refinebox.files import checkpoint


def save(
    path: Path, models: Mapping[str, nn.Module], optimizer: torch.optim.Optimizer, progress: dict[str, Any]
) -> None:
    """Writes the tensors of the models and the optimizer, and ``progress`` (plain JSON); whole or not at all."""
    tensors = {f"{key}.{name}": tensor for key, model in models.items() for name, tensor in model.state_dict().items()}
    for index, state in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{index}.{name}": tensor for name, tensor in state.items()}
    checkpoint.write(path, tensors, {"kind": "training state", "progress": progress})


def load(path: Path, models: Mapping[str, nn.Module], optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """Fills the models and the optimizer from a file that :func:`save` wrote, and returns its ``progress``.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged or something else.
    """
    tensors, metadata = checkpoint.read(path)
    if metadata.get("kind") != "training state":
        raise ValueError(f"{path} is no training state; expected the file that the interrupted run wrote")
    for key, model in models.items():
        model.load_state_dict(_under(key, tensors))
    state: dict[int, dict[str, torch.Tensor]] = {}
    for name, tensor in _under("optimizer", tensors).items():
        index, entry = name.split(".")
        state.setdefault(int(index), {})[entry] = tensor
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
    for parameter, entries in optimizer.state.items():
        # a fused optimizer walks through memory, so its state must be laid out like the parameter
        for name, tensor in entries.items():
            if tensor.shape == parameter.shape:
                entries[name] = torch.empty_like(parameter).copy_(tensor)
    progress: dict[str, Any] = metadata["progress"]
    return progress


def _under(key: str, tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name.removeprefix(f"{key}."): tensor for name, tensor in tensors.items() if name.startswith(f"{key}.")}
