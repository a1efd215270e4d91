"""What the authors' own code computed, and the weights that it ran with."""

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import mmdet_files
import pytest
import torch
from torch import Tensor


@dataclass(frozen=True)
class Recording:
    """One family's reference.

    Attributes:
        name: of a detector of the family in the table.
        content: inputs and outputs.
        state: the weights, in the authors' layout or mmdetection's.
    """

    name: str
    content: dict[str, Any]
    state: dict[str, Tensor]

    @property
    def deformable(self) -> bool:
        """Whether it comes from mmdetection, which counts the 80 categories that exist, and not 91 ids."""
        return self.name in MMDET.values()

    def write(self, path: Path, state: dict[str, Tensor] | None = None) -> Path:
        """The weights, or others, in a file as it is published."""
        state = self.state if state is None else state
        if self.deformable:
            return mmdet_files.write(path, state, self.content["config"]["num_queries"])
        torch.save({"model": state}, path)
        return path


@pytest.fixture(scope="session")
def recording(shared: Path) -> Callable[[str], Recording]:
    """The reference of a family; its weights are rebuilt from their seed."""
    synth = module(shared / "fixtures/detectors/synth.py")

    @cache
    def load(family: str) -> Recording:
        content = torch.load(shared / f"fixtures/detectors/{family}.pt", weights_only=True)
        state = {**synth.synth_state_dict(content["shapes"], content["seed"]), **content["overrides"]}
        return Recording(f"{family.replace('_', '-')}-r50", content, state)

    return load


MMDET = {
    "deformable_detr": "deformable-detr-r50",
    "deformable_detr_refine": "deformable-detr-r50-refine",
    "dino_4scale": "dino-r50-4scale",
    "ddq_detr_4scale": "ddq-detr-r50-4scale",
    "co_deformable_detr": "co-deformable-detr-r50",
    "co_dino": "co-dino-r50",
}


@pytest.fixture(scope="session")
def mmdet_recording(shared: Path) -> Callable[[str], Recording]:
    """The reference of a deformable detector, in mmdetection's layout; its weights are rebuilt from their seed."""
    synth = module(shared / "fixtures/mm/synth_mm.py")

    @cache
    def load(file: str) -> Recording:
        content = torch.load(shared / f"fixtures/mm/{file}.pt", weights_only=True)
        return Recording(MMDET[file], content, synth.state_dict(content))

    return load


def module(path: Path) -> Any:
    """A module of the reference material."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded
