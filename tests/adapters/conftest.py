"""What the authors' own code computed, and the weights that it ran with."""

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor


@dataclass(frozen=True)
class Recording:
    """One family's reference.

    Attributes:
        name: of a detector of the family in the table.
        content: inputs and outputs.
        state: the weights, in the authors' layout.
    """

    name: str
    content: dict[str, Any]
    state: dict[str, Tensor]


@pytest.fixture(scope="session")
def recording(shared: Path) -> Callable[[str], Recording]:
    """The reference of a family; its weights are rebuilt from their seed."""
    spec = importlib.util.spec_from_file_location("synth", shared / "fixtures/detectors/synth.py")
    assert spec is not None
    assert spec.loader is not None
    synth = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(synth)

    @cache
    def load(family: str) -> Recording:
        content = torch.load(shared / f"fixtures/detectors/{family}.pt", weights_only=True)
        state = {**synth.synth_state_dict(content["shapes"], content["seed"]), **content["overrides"]}
        return Recording(f"{family.replace('_', '-')}-r50", content, state)

    return load
