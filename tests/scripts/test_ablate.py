"""The ablation: what its variants change, who begins which run, and one run on tiny data."""

from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest

from refinebox.detection.detector import Detector
from refinebox.refinement.architecture import PUBLISHED, SPATIAL


def test_a_variant_changes_what_it_names_and_nothing_else(script: ModuleType) -> None:
    assert script.VARIANTS["default"].settings == script.BASE
    assert script.VARIANTS["2 steps"].settings == replace(script.BASE, steps=2)
    assert script.VARIANTS["FPN"].settings == replace(script.BASE, architecture=replace(SPATIAL, pyramid="fpn"))
    assert script.VARIANTS["published"].settings.architecture == PUBLISHED
    settings = [variant.settings for variant in script.VARIANTS.values() if variant.part is script.parts.plain]
    assert len({str(each) for each in settings}) == len(settings)


def test_every_run_is_begun_once(script: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    results, key = tmp_path / "ablation.jsonl", {"variant": "1x", "seed": 0}
    assert script.claimed(results, key)
    assert not script.claimed(results, key)
    assert "1x-0 has been begun already; if it never ended, remove " in capsys.readouterr().out
    assert script.claimed(results, key | {"seed": 1})


@pytest.mark.parametrize("oracle", [False, True])
def test_a_run_gives_figures_that_the_table_shows(
    script: ModuleType, detector: Detector, shapes_folder: Path, oracle: bool
) -> None:
    bench = script.Bench(detector, shapes_folder)
    found = bench.run("default", replace(script.BASE, epochs=1), oracle=oracle)
    low, high = found["interval"]
    assert low <= high
    assert set(found["oracle"]) == ({"before", "after"} if oracle else set())
    assert bench.run("default", replace(script.BASE, epochs=1))["after"] == found["after"]
    line = {"detector": "tiny", "data": "shapes", "variant": "default", "seed": 0, "epochs": 1, **found}
    row = script.table([line, line | {"seed": 1}]).splitlines()[-1]
    assert row.startswith("| tiny, shapes, 1 | default | 2 |")
