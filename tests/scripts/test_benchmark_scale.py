"""The benchmark of many images, on a tiny detector; what it measures is not judged here."""

from pathlib import Path
from types import ModuleType

import pytest
from refinebox.adapters.parts.sizes import Sizes


def test_every_step_is_measured(script: ModuleType, tiny: Sizes, tmp_path: Path) -> None:
    pytest.importorskip("pyarrow", reason="pyarrow is not installed; pip install -e '.[test]'")
    figures = script.steps(script.untrained(tiny), tmp_path, (48, 64), repeats=1)
    assert list(figures) == [
        f"{name}, CPU ms an image" for name in ("reading", "detection", "detection and refinement")
    ]
    figures |= script.written(tmp_path, 5, repeats=1)
    assert all(figure > 0 for figure in figures.values())
    assert 28 < figures["bytes a detection"] < 200  # four sides, score and move of 4 bytes, and what is around them
