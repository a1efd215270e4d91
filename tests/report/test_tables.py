"""The figures on the terminal, as JSON and as CSV."""

import csv
import io
import json
import re
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import pytest
from random_boxes import worse

from refinebox.analysis import analysis
from refinebox.analysis.analysis import Analysis
from refinebox.commands.oracle_analysis import publish
from refinebox.data.annotations import CocoData
from refinebox.evaluation.evaluator import METRICS
from refinebox.files import checkpoint
from refinebox.report import tables


@pytest.fixture
def compared(validation: CocoData, tmp_path: Path) -> Analysis:
    for name, shift in (("before", 0.1), ("after", 0.02)):
        checkpoint.write_json(tmp_path / f"{name}.json", worse(validation, shift=shift))
    return analysis.run(validation, results=tmp_path / "before.json", refined=tmp_path / "after.json")


def test_the_terminal_shows_every_figure(compared: Analysis, capsys: pytest.CaptureFixture[str]) -> None:
    publish(compared, None, None, None)
    shown = capsys.readouterr().out
    for swap in compared.swaps:
        line = next(line for line in shown.splitlines() if line.startswith(f"│ {swap.title} "))
        assert f"{compared.evaluations[swap.name].metrics['AP']:.1f}" in line
    for text in ("Matching: greedy", "Scores: ", "Gains do not add up", "TIDE's errors", "duplicate", "star"):
        assert text in shown
    assert "of the headroom closed." in shown
    assert re.search(r"Refined: AP [\d.]+ → [\d.]+ \(\+[\d.]+, 95 %: \+[\d.]+ to \+[\d.]+\), over 1,000 ", shown)


def test_what_chose_the_refiner_shows_no_gain(compared: Analysis) -> None:
    caveat = "these images chose the epoch, so this measures no gain"
    [line] = tables.comparison_lines(replace(compared, found=replace(compared.found, caveat=caveat)))
    assert re.fullmatch(rf"Refined: AP [\d.]+ → [\d.]+; {caveat}\.", line)


def test_json_holds_everything(compared: Analysis) -> None:
    content = json.loads(json.dumps(tables.to_json(compared)))
    assert list(content["swaps"])[:4] == ["none", "class", "box", "both"]
    assert content["swaps"].keys() == content["gains"].keys() == content["meanings"].keys()
    assert all(list(metrics) == list(METRICS) for metrics in content["swaps"].values())
    box, none = content["swaps"]["box"]["AP"], content["swaps"]["none"]["AP"]
    assert content["gains"]["box"]["AP"] == pytest.approx(box - none)
    assert content["gains"]["none"]["AP"] == 0
    assert list(content["per_threshold"]["none"])[::9] == ["0.50", "0.95"]
    assert sum(entry["objects"] for entry in content["per_class"]) == len(compared.data.annotations)
    known = [entry["swaps"]["none"]["AP"] for entry in content["per_class"] if entry["objects"]]
    assert sum(known) / len(known) == pytest.approx(none)
    assert content["tide"] == compared.errors
    after = content["headroom"]["after"]["AP"]
    assert content["headroom"]["closed"]["AP"] == pytest.approx((after - none) / (box - none))
    assert content["bootstrap"].keys() == {"mean", "low", "high", "resamples"}
    assert content["inputs"].keys() == {"results", "refined", "annotations"}
    assert content["evaluated_by"] == f"hotcoco {version('hotcoco')}"
    assert content["versions"].keys() == {"refinebox", "faster-coco-eval", "pycocotools", "numpy", "torch"}


def test_json_without_refinement_has_no_headroom(compared: Analysis) -> None:
    content = tables.to_json(replace(compared, comparison=None))
    assert not {"headroom", "bootstrap"} & content.keys()
    assert tables.comparison_lines(replace(compared, comparison=None)) == []


def test_csv_has_a_line_for_each_category_after_one_for_all(compared: Analysis) -> None:
    total, *rows = csv.DictReader(io.StringIO(tables.to_csv(compared)))
    assert total["category"] == "all"
    assert int(total["objects"]) == len(compared.data.annotations)
    assert [row["category"] for row in rows] == list(compared.data.categories.values())
    for name, found in compared.evaluations.items():
        assert float(total[f"{name} AP"]) == pytest.approx(found.metrics["AP"], abs=1e-4)
    for row in rows:
        metrics = compared.evaluations["box"].per_category[int(row["category id"])]
        for metric, value in metrics.items():
            assert row[f"box {metric}"] == ("" if value is None else str(round(value, 4)))


def test_gains_are_differences_where_both_are_known() -> None:
    assert tables.gains({"AP": 30.0, "APs": None}, {"AP": 28.0, "APs": 3.0}) == {"AP": 2.0, "APs": None}
    assert (tables.points(None), tables.points(12.34)) == ("–", "12.3")
