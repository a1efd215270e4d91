"""Held-out images decide, and what they decide stands in the file."""

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from refinebox.data import annotations, layout, shapes
from refinebox.data.annotations import CocoData
from refinebox.detection.choice import Choice as FinalChoice
from refinebox.detection.detector import Detector
from refinebox.evaluation.bootstrap import Interval
from refinebox.evaluation.evaluator import Metrics
from refinebox.evaluation.link import Link
from refinebox.evaluation.rows import Rows
from refinebox.refinement.architecture import SPATIAL
from refinebox.refinement.quality import Quality
from refinebox.refinement.refiner import Refiner
from refinebox.refinement.refiner_file import load_refiner_and_history
from refinebox.refinement.upgraded import apply, load
from refinebox.training import held_out as deciding
from refinebox.training.held_out import FEWEST, Choice, conclude, hold_out
from refinebox.training.run import write_refiner
from refinebox.training.settings import Settings
from refinebox.training.verdict import Report

METRICS: Metrics = {"AP": 40.0}


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> CocoData:
    folder = tmp_path_factory.mktemp("many")
    shapes.generate(folder, "train", 24, seed=0)
    return annotations.read(*layout.find(folder, "train"))


def test_the_split_is_by_image_and_seeded(many: CocoData) -> None:
    learned, held_out = hold_out(many, 0.5, seed=0)
    assert held_out is not None
    ids = [{entry["id"] for entry in data.images} for data in (learned, held_out)]
    assert ids[0] | ids[1] == {entry["id"] for entry in many.images}
    assert not ids[0] & ids[1]
    assert len(ids[1]) == 12
    for data, own in zip((learned, held_out), ids, strict=True):
        assert {entry["image_id"] for entry in data.annotations} == own
    assert hold_out(many, 0.5, seed=0)[1] == held_out
    assert hold_out(many, 0.5, seed=1)[1] != held_out


def test_few_images_are_all_learned_from(many: CocoData) -> None:
    assert hold_out(many, (FEWEST - 1) / 24, seed=0) == (many, None)
    assert hold_out(many, 0.0, seed=0) == (many, None)


def test_images_without_objects_decide_nothing(many: CocoData) -> None:
    empty = many.images[0]["id"]
    part = replace(many, annotations=[entry for entry in many.annotations if entry["image_id"] != empty])
    for seed in range(4):
        held_out = hold_out(part, 0.5, seed)[1]
        assert held_out is not None
        assert empty not in {entry["id"] for entry in held_out.images}


def truth(data: CocoData, shift: float, scores: float | None = None) -> Rows:
    """Every object, found ``shift`` of its width to the right, with random scores or the best."""
    random = np.random.default_rng(0)
    rows = []
    for entry in data.annotations:
        x, y, w, h = entry["bbox"]
        rows.append([entry["image_id"], x + shift * w, y, w, h, scores or random.random(), entry["category_id"]])
        rows.append([entry["image_id"], 0, 0, 3, 3, random.random(), entry["category_id"]])  # of nothing
    return np.array(rows)


@pytest.mark.parametrize("quality", [True, False], ids=["quality", "boxes"])
@pytest.mark.parametrize("shift", [0.0, 0.2, 0.3], ids=["better", "equal", "worse"])
def test_the_choice_is_made_and_written(
    shift: float,
    quality: bool,
    detector: Detector,
    many: CocoData,
    validation: CocoData,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def found(_: Detector, data: CocoData, *__: Any, others: dict[str, Any], **___: Any) -> dict[str, Rows]:
        rows = {"before": truth(data, 0.9), "clipped": truth(data, 0.2), "after": truth(data, shift)}
        return rows | {name: truth(data, shift, scores=1.0) for name in others}

    refiner = Refiner(detector.channels, detector.strides, architecture=SPATIAL)
    path = tmp_path / "best.safetensors"
    best = {"before": METRICS, "clipped": METRICS, "after": METRICS, "weights": "averaged", "far_matches": 0.2}
    write_refiner(path, refiner, detector, {}, best)
    monkeypatch.setattr(deciding, "detect", found)
    monkeypatch.setattr(deciding, "train_quality", lambda *_: Quality(refiner.steps, len(detector.category_ids)))
    learned, held_out = hold_out(many, 0.5, seed=0)
    settings = Settings(quality=quality)
    conclude(path, detector, learned, held_out, validation, settings, "check", batch_size=2, workers=0)
    written, history = load_refiner_and_history(path)
    chosen = Choice.read(history)
    assert chosen is not None
    assert (chosen.images, chosen.refine, chosen.rescore) == (12, shift == 0.0, quality)
    assert np.sign(round(chosen.boxes.mean, 6)) == np.sign(0.2 - shift)
    assert (written.quality is not None) == quality
    assert all(torch.equal(tensor, written.state_dict()[name]) for name, tensor in refiner.state_dict().items())


@pytest.mark.parametrize("unseen", [0.0, 100.0])
def test_validation_images_decide_where_the_detector_knows_the_others_by_heart(
    unseen: float,
    detector: Detector,
    many: CocoData,
    validation: CocoData,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A refiner that spoils the boxes of images that were learned by heart may mend those of others."""

    def found(_: Detector, data: CocoData, *__: Any, **___: Any) -> dict[str, Rows]:
        moved = 0.0 if data is validation else 0.3
        return {"before": truth(data, 0.2), "after": truth(data, moved)}

    path = tmp_path / "best.safetensors"
    best = {"before": {"AP": unseen}, "after": METRICS, "weights": "averaged"}
    write_refiner(path, Refiner(detector.channels, detector.strides, architecture=SPATIAL), detector, {}, best)
    monkeypatch.setattr(deciding, "detect", found)
    learned, held_out = hold_out(many, 0.5, seed=0)
    conclude(path, detector, learned, held_out, validation, Settings(), "check", batch_size=2, workers=0)
    chosen = Choice.read(load_refiner_and_history(path)[1])
    assert chosen is not None
    assert chosen.refine == (unseen == 0.0)
    assert chosen.images == (len(validation.images) if unseen == 0.0 else 12)
    assert (chosen.known is None) == (unseen == 100.0)
    assert ("knows held-out training images by heart" in str(chosen)) == (unseen == 0.0)


@pytest.mark.parametrize(("shift", "pays"), [(0.0, True), (0.3, True), (0.0, False)])
def test_voting_is_chosen_for_the_boxes_that_are_chosen(
    shift: float,
    pays: bool,
    detector: Detector,
    many: CocoData,
    validation: CocoData,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The refined boxes, or the detector's own where the refiner makes them worse (``shift`` 0.3 against 0.2)."""
    detector.profile = replace(detector.profile, choice=FinalChoice("suppression", iou=0.5))

    def found(_: Detector, data: CocoData, *__: Any, voter: Detector | None, **___: Any) -> dict[str, Rows]:
        assert voter is not None
        assert voter.profile.final.voting
        rows = {"before": truth(data, 0.2), "clipped": truth(data, 0.2), "after": truth(data, shift)}
        better = 0.15 if pays else 0.25
        return rows | {"before voted": truth(data, better), "after voted": truth(data, shift and better)}

    path = tmp_path / "best.safetensors"
    best = {"before": METRICS, "after": METRICS, "weights": "averaged"}
    write_refiner(path, Refiner(detector.channels, detector.strides, architecture=SPATIAL), detector, {}, best)
    monkeypatch.setattr(deciding, "detect", found)
    learned, held_out = hold_out(many, 0.5, seed=0)
    conclude(path, detector, learned, held_out, validation, Settings(), "check", batch_size=2, workers=0)
    chosen = Choice.read(load_refiner_and_history(path)[1])
    assert chosen is not None
    assert chosen.votes is not None
    assert (chosen.refine, chosen.vote) == (shift == 0.0, pays and shift > 0)
    assert ("do not vote" in str(chosen)) == (not chosen.vote)
    assert not detector.profile.final.voting
    output = tmp_path / "better.safetensors"
    if chosen.refine:
        apply(detector, None, path, output)
        assert bool(load(output).profile.final.voting) == chosen.vote
    else:
        with pytest.raises(ValueError, match="leave out --refiner and pass --voting, which pays there"):
            apply(detector, None, path, output)


@pytest.mark.parametrize(("refine", "rescore"), [(True, True), (True, False), (False, True), (False, False)])
def test_voting_is_judged_in_one_pass_with_the_scores_that_it_will_have(
    refine: bool, rescore: bool, detector: Detector, many: CocoData, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It pays for the one combination that is chosen, and for no other."""
    detector.profile = replace(detector.profile, choice=FinalChoice("suppression", iou=0.5))
    final = ("rescored" if rescore else "after") if refine else "before"
    passes = []

    def found(_: Detector, data: CocoData, *__: Any, others: dict[str, Any], **___: Any) -> dict[str, Rows]:
        passes.append(others)
        moved = truth(data, 0.1 if refine else 0.3)
        rescored = truth(data, 0.1 if refine else 0.3, scores=1.0 if rescore else None)
        rows = {"before": truth(data, 0.2), "clipped": truth(data, 0.2), "after": moved, "rescored": rescored}
        worse = {f"{name} voted": truth(data, 0.6) for name in rows}
        return rows | worse | {f"{final} voted": truth(data, 0.0, scores=1.0)}

    monkeypatch.setattr(deciding, "detect", found)
    refiner = Refiner(detector.channels, detector.strides)
    refiner.quality = Quality(refiner.steps, len(detector.category_ids))
    chosen = deciding.choose(detector, refiner, many, Link.between(detector, many), {})
    assert (chosen.refine, chosen.rescore, chosen.vote) == (refine, rescore, True)
    assert len(passes) == 1


def test_a_refiner_that_is_forced_does_not_vote_on_the_word_of_other_boxes(detector: Detector, tmp_path: Path) -> None:
    detector.profile = replace(detector.profile, choice=FinalChoice("suppression", iou=0.5))
    path, output = tmp_path / "best.safetensors", tmp_path / "better.safetensors"
    choice = Choice(12, False, False, Interval(-1, -2, 0, 9), vote=True, votes=Interval(2, 1, 3, 9))
    best = {"before": METRICS, "after": METRICS, "weights": "last", "choice": asdict(choice)}
    write_refiner(path, Refiner(detector.channels, detector.strides), detector, {}, best)
    apply(detector, None, path, output, force=True)
    assert not load(output).profile.final.voting
    apply(detector, None, path, output, force=True, voting=True)
    assert load(output).profile.final.voting


def test_images_that_cannot_be_read_are_told(
    detector: Detector,
    many: CocoData,
    validation: CocoData,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def found(_: Detector, data: CocoData, *__: Any, unreadable: list[str] | None, **___: Any) -> dict[str, Rows]:
        if unreadable is not None:
            unreadable += ["b.jpg is damaged", "a.jpg is damaged"]
        return {"before": truth(data, 0.2), "after": truth(data, 0.0)}

    path = tmp_path / "best.safetensors"
    monkeypatch.setattr(deciding, "detect", found)
    learned, held_out = hold_out(many, 0.5, seed=0)
    for strict in (True, False):
        write_refiner(
            path, Refiner(detector.channels, detector.strides), detector, {}, {"before": METRICS, "after": METRICS}
        )
        options: dict[str, Any] = {"batch_size": 2, "workers": 0, "strict": strict}
        conclude(path, detector, learned, held_out, validation, Settings(), "check", **options)
        told = capsys.readouterr()
        expected = "2 images that should decide could not be read, such as: a.jpg is damaged"
        assert (expected in told.out + told.err) == (not strict)


def test_without_held_out_images_the_head_is_kept(
    detector: Detector, training: CocoData, validation: CocoData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refiner = Refiner(detector.channels, detector.strides, architecture=SPATIAL)
    path = tmp_path / "best.safetensors"
    write_refiner(path, refiner, detector, {}, {"before": METRICS, "after": METRICS})
    monkeypatch.setattr("refinebox.training.quality.STEPS", 2)
    conclude(path, detector, training, None, validation, Settings(quality=True), "check", batch_size=2, workers=0)
    written, history = load_refiner_and_history(path)
    assert written.quality is not None
    assert Choice.read(history) is None
    assert history["after"]["AP"] != METRICS["AP"]  # evaluated with the head


def report(gain: float, choice: Choice | None = None, far: float = 0.0, overlap: float | None = None) -> str:
    clipped: Metrics = {"AP": 40.5}
    return Report(Path("best"), METRICS, {"AP": 40.5 + gain}, "last", 9.0, clipped, choice, far, overlap).verdict()


def test_the_verdict_tells_what_was_chosen_and_why() -> None:
    good, bad = Interval(2.0, 1.0, 3.0, 9), Interval(0.5, -1.0, 2.0, 9)
    assert report(2.0, Choice(80, True, False, good, bad)) == (
        "validation AP 40.0 (40.5 cut at the borders) → 42.5, by which the epoch was chosen, in 9 s; 80 training "
        "images that were held out say +2.0 (95 %: +1.0 to +3.0), and its scores +0.5 (95 %: -1.0 to +2.0), so they "
        "are left alone (a detector that was trained on these images looks better there than it is); the refiner (last "
        "weights) is in best"
    )
    known = Choice(80, True, False, good, before=50.0, after=52.0)
    assert "that were held out say 50.0 → 52.0 (+2.0, 95 %: +1.0 to +3.0) (a" in report(2.0, known)
    ended = report(2.0, replace(known, ended=True))
    assert "say 50.0 → 52.0 (+2.0, 95 %: +1.0 to +3.0, of images that also ended the training) (a" in ended
    refused = report(2.0, Choice(20, False, False, bad), far=0.34)
    assert ": the refiner is NOT WORTH applying as far as can be told (34 % of the objects had no predicted" in refused
    assert "20 held-out images tell little; --held-out takes a larger share" in refused
    tight = report(2.0, Choice(80, False, False, bad), overlap=0.91)
    assert "can be told (the detector's boxes are tight already, with a mean IoU of 0.91)" in tight
    assert "tight" not in report(2.0, Choice(80, False, False, bad), overlap=0.8)
    harmful = Choice(80, False, False, Interval(-2.0, -3.0, -1.0, 9))
    misled = Report(Path("best"), METRICS, METRICS, "last", 9.0, choice=harmful, jitter=2)
    assert (
        "(moved copies of objects, off in other ways than its boxes, may mislead: try --jitter 0)" in misled.verdict()
    )
    for other in (replace(misled, jitter=0), replace(misled, choice=replace(harmful, boxes=bad))):
        assert "--jitter" not in other.verdict()
    assert "makes these boxes WORSE" in report(-0.1)
