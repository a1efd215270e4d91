"""The training state survives a round trip, whatever the model."""

from pathlib import Path

import pytest
import torch
from torch import nn

from refinebox.files import checkpoint
from refinebox.training import resume


def trained() -> tuple[nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(0)
    model = nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    model(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    return model, optimizer


def test_model_optimizer_and_progress_come_back(tmp_path: Path) -> None:
    model, optimizer = trained()
    resume.save(tmp_path / "state.safetensors", {"model": model}, optimizer, {"epoch": 3, "best": None})
    other = nn.Linear(3, 2)
    other_optimizer = torch.optim.AdamW(other.parameters(), lr=0.1)
    assert resume.load(tmp_path / "state.safetensors", {"model": other}, other_optimizer) == {"epoch": 3, "best": None}
    for each, its_optimizer in ((model, optimizer), (other, other_optimizer)):
        its_optimizer.zero_grad()
        each(torch.ones(1, 3)).square().sum().backward()
        its_optimizer.step()
    assert torch.equal(model.weight, other.weight)
    assert torch.equal(model.bias, other.bias)


def test_other_files_are_refused(tmp_path: Path) -> None:
    model, optimizer = trained()
    checkpoint.write(tmp_path / "weights.safetensors", model.state_dict(), {"kind": "refiner"})
    with pytest.raises(ValueError, match="is no training state"):
        resume.load(tmp_path / "weights.safetensors", {"model": model}, optimizer)
