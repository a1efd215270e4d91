"""The analysis of detections, live and from a file, and what refinement made of them."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from random_boxes import worse

from refinebox.analysis import analysis, oracle, swaps
from refinebox.analysis.analysis import Comparison
from refinebox.data.annotations import CocoData
from refinebox.detection.detector import Detector
from refinebox.evaluation import bootstrap, detect
from refinebox.evaluation.evaluator import Evaluation, coco_ap
from refinebox.evaluation.link import Link
from refinebox.evaluation.overlaps import Objects
from refinebox.evaluation.results import read_results
from refinebox.evaluation.rows import to_results
from refinebox.files import checkpoint
from refinebox.refinement.refined_detector import RefinedDetector
from refinebox.refinement.refiner import Refiner


@pytest.fixture
def results(validation: CocoData, tmp_path: Path) -> Path:
    path = tmp_path / "before.json"
    checkpoint.write_json(path, worse(validation))
    return path


def test_every_swap_of_a_file_is_evaluated(results: Path, validation: CocoData) -> None:
    done = analysis.run(validation, results=results, min_iou=0.7)
    rows = read_results(results, validation)
    findings = swaps.Findings.of(rows, Objects.of(validation))
    assert list(done.evaluations) == [swap.name for swap in swaps.swaps()]
    for swap in swaps.swaps(0.7):
        swapped = swap.apply(findings)
        kept = [entry for entry, stays in zip(validation.annotations, swapped.objects, strict=True) if stays]
        expected = coco_ap(replace(validation, annotations=kept), swapped.rows)
        assert done.evaluations[swap.name].metrics == pytest.approx(expected, nan_ok=True), swap.name
    assert done.comparison is None
    assert done.errors["AP50"] == pytest.approx(done.evaluations["none"].metrics["AP50"])
    assert done.found.inputs["results"] == {"name": "before.json", "sha256": checkpoint.file_sha256(results)}
    assert validation.source
    assert done.found.inputs["annotations"]["sha256"] == checkpoint.file_sha256(validation.source)


def test_objects_that_are_missed_do_not_count_without_misses(results: Path, validation: CocoData) -> None:
    done = analysis.run(validation, results=results)
    missed = done.errors["errors"]["missed"]["count"]
    assert missed > 0
    assert (done.evaluations["no_misses"].metrics["AR"] or 0) > (done.evaluations["none"].metrics["AR"] or 0)


def test_a_refined_file_is_compared(results: Path, validation: CocoData, tmp_path: Path) -> None:
    refined = tmp_path / "refined.json"
    checkpoint.write_json(refined, worse(validation, shift=0.03))
    done = analysis.run(validation, results=results, refined=refined)
    assert done.comparison
    before, after = (coco_ap(validation, read_results(path, validation))["AP"] or 0 for path in (results, refined))
    best = done.evaluations["box"].metrics["AP"] or 0
    assert done.comparison.headroom_closed()["AP"] == pytest.approx((after - before) / (best - before))
    assert 0 < done.comparison.interval.low < after - before < done.comparison.interval.high
    assert done.found.inputs["refined"]["sha256"] == checkpoint.file_sha256(refined)
    np.testing.assert_array_equal(done.rows[1], read_results(refined, validation))


def evaluation(**metrics: float | None) -> Evaluation:
    return Evaluation(dict(metrics), {}, {})


def test_headroom_that_is_not_there_is_not_closed() -> None:
    before, after = evaluation(AP=40, APs=None, APl=50), evaluation(AP=43, APs=None, APl=49)
    best = evaluation(AP=52, APs=None, APl=50)
    comparison = Comparison(before, after, best, bootstrap.Interval(3, 2, 4, 10))
    assert comparison.headroom_closed() == {"AP": 0.25, "APs": None, "APl": None}


def test_a_live_detector_keeps_the_published_swaps(detector: Detector, validation: CocoData) -> None:
    link = Link.between(detector, validation)
    done = analysis.run(validation, detector)
    published = oracle.analyse(detector, validation, link)
    assert {name: done.evaluations[name].metrics for name in published} == published
    assert done.found.rules == (oracle.MATCHING_RULE, oracle.SCORE_RULE, analysis.LIVE_RULE)
    own = done.evaluations["class_own_score"].metrics["AP"] or 0
    assert own <= (published["class"]["AP"] or 0)
    rows = detect.detect(detector, validation, link)["before"]
    assert done.errors["errors"]["missed"]["count"] < len(validation.annotations)
    np.testing.assert_array_equal(done.rows[0], rows)
    digest = checkpoint.tensors_sha256(detector.state_dict())
    assert done.found.inputs["detector"] == {"name": "tiny", "sha256": digest}


def test_an_upgraded_checkpoint_is_compared_with_itself_before(detector: Detector, validation: CocoData) -> None:
    torch.manual_seed(0)
    model = RefinedDetector(detector, Refiner(detector.channels, detector.strides))
    link = Link.between(model, validation)
    done = analysis.run(validation, model)
    expected = detect.evaluate(model, validation, link)
    assert done.comparison
    assert done.comparison.before.metrics == expected["before"]
    assert done.comparison.after.metrics == expected["after"] == done.evaluations["none"].metrics
    assert done.comparison.perfect_box.metrics == oracle.analyse(detector, validation, link)["box"]


def test_a_live_detector_can_be_compared_with_a_file(detector: Detector, validation: CocoData, tmp_path: Path) -> None:
    link = Link.between(detector, validation)
    rows = detect.detect(detector, validation, link)["before"]
    checkpoint.write_json(tmp_path / "same.json", to_results(rows))
    done = analysis.run(validation, detector, refined=tmp_path / "same.json")
    assert done.comparison
    assert done.comparison.headroom_closed()["AP"] == pytest.approx(0, abs=1e-3)  # results files are rounded


@pytest.mark.parametrize("given", ["neither", "both"])
def test_there_is_one_source(given: str, detector: Detector, results: Path, validation: CocoData) -> None:
    sources = (detector, results) if given == "both" else (None, None)
    expected = f"^name one source of detections, --detector NAME or --results FILE; got {given}$"
    with pytest.raises(ValueError, match=expected):
        analysis.run(validation, *sources)
