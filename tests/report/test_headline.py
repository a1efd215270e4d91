"""The first sentence of a report."""

from dataclasses import replace
from pathlib import Path

import pytest
from random_boxes import worse

from refinebox.analysis import analysis
from refinebox.analysis.analysis import Analysis
from refinebox.data.annotations import CocoData
from refinebox.evaluation.evaluator import Evaluation
from refinebox.files import checkpoint
from refinebox.report.headline import headline


@pytest.fixture
def done(validation: CocoData, tmp_path: Path) -> Analysis:
    checkpoint.write_json(tmp_path / "results.json", worse(validation))
    return analysis.run(validation, results=tmp_path / "results.json")


def with_ap(done: Analysis, **values: float) -> Analysis:
    """The same with other figures."""
    found: dict[str, Evaluation] = {
        name: replace(old, metrics={**old.metrics, "AP": values.get(name, 0.0)})
        for name, old in done.evaluations.items()
    }
    return replace(done, evaluations=found)


def test_boxes_that_limit_are_told_with_what_is_in_reach(done: Analysis) -> None:
    told = headline(with_ap(done, none=50.0, box=70.0, box_from_iou=65.0, **{"class": 55.0}))
    assert told == (
        "Boxes limit this detector: perfect ones would add 20.0 to its AP of 50.0, 15.0 of it within a refiner's reach "
        "(IoU ≥ 0.50); perfect classes would add 5.0."
    )


def test_classes_that_limit_more_are_told(done: Analysis) -> None:
    told = headline(with_ap(done, none=50.0, box=55.0, box_from_iou=54.0, **{"class": 80.0}))
    assert told.startswith("Boxes limit this detector, though less than classes do: perfect ones would add 5.0")


def test_boxes_that_do_not_limit_are_told(done: Analysis) -> None:
    told = headline(with_ap(done, none=50.0, box=51.0, box_from_iou=50.5, **{"class": 80.0}))
    assert told.startswith("Boxes do not limit this detector: perfect ones would add 1.0 to its AP of 50.0, 0.5 of it")


def test_a_detector_that_finds_nothing_is_told(done: Analysis) -> None:
    assert headline(with_ap(done, none=0.4, box=80.0)).startswith("This detector finds next to nothing here (AP 0.4)")


def test_no_object_at_all_is_told(done: Analysis) -> None:
    assert headline(replace(done, data=replace(done.data, annotations=[]))).startswith("There is no object to find")
