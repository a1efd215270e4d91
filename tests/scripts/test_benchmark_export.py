"""The benchmark of exported files, on a tiny detector; what it measures is not judged here."""

from types import ModuleType

import pytest
from refinebox.adapters.parts.sizes import Sizes

pytest.importorskip("onnxruntime", reason="exporting is tested with the extra onnx; pip install -e '.[test]'")


def test_every_figure_is_there(script: ModuleType, tiny: Sizes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(script, "STAGES", ("frozen",))
    figures = script.compare("tiny, ", tiny, (64, 96), (2,), repeats=1)
    assert all(figure > 0 for figure in figures.values())
    at = "tiny, frozen, batch 2"
    measured = {f"{at}, {way}, {what}" for way in script.WAYS for what in ("s", "CPU s", "peak GiB")}
    assert set(figures) == {*measured, "tiny, frozen, MiB of the file", "tiny, onnxruntime_ratio, frozen, batch 2"}
    ratio = figures[f"{at}, onnxruntime, CPU s"] / figures[f"{at}, torch, CPU s"]
    assert figures["tiny, onnxruntime_ratio, frozen, batch 2"] == pytest.approx(ratio)
