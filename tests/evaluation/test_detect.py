"""A detector over a data set, before and after refinement."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from refinebox.data import annotations, layout, shapes
from refinebox.data.annotations import CocoData
from refinebox.detection.choice import Choice
from refinebox.detection.detector import Detector
from refinebox.evaluation import detect
from refinebox.evaluation.evaluator import coco_ap
from refinebox.evaluation.link import Link
from refinebox.refinement.architecture import SPATIAL
from refinebox.refinement.quality import Quality
from refinebox.refinement.refined_detector import RefinedDetector
from refinebox.refinement.refiner import Refiner


def refined(detector: Detector) -> RefinedDetector:
    torch.manual_seed(1)
    return RefinedDetector(detector, Refiner(detector.channels, detector.strides))


def test_before_refinement_is_what_the_plain_detector_finds(detector: Detector, validation: CocoData) -> None:
    link = Link.between(detector, validation)
    plain = detect.detect(detector, validation, link, batch_size=2)
    both = detect.detect(refined(detector), validation, link, batch_size=2)
    assert plain.keys() == {"before"}
    assert both.keys() == {"before", "after"}
    np.testing.assert_array_equal(both["before"], plain["before"])
    assert (both["after"][:, 1:5] != both["before"][:, 1:5]).any(1).all()
    np.testing.assert_array_equal(both["after"][:, [0, 5, 6]], both["before"][:, [0, 5, 6]])


def test_before_voting_is_the_detector_that_does_not_vote(detector: Detector, validation: CocoData) -> None:
    link = Link.between(detector, validation)
    choice = Choice("suppression", iou=0.3, above=0.0)
    detector.profile = replace(detector.profile, choice=choice)
    plain = detect.detect(detector, validation, link)["before"]
    moved = detect.detect(refined(detector), validation, link)["after"]
    detector.profile = replace(detector.profile, choice=replace(choice, voting=0.5))
    voting, both = detect.detect(detector, validation, link), detect.detect(refined(detector), validation, link)
    assert list(voting) == ["before", "after"]
    assert list(both) == ["before", "voted", "after"]
    for rows in (voting["before"], both["before"]):
        np.testing.assert_array_equal(rows, plain)
    np.testing.assert_array_equal(voting["after"], both["voted"])
    np.testing.assert_array_equal(voting["after"][:, [0, 5, 6]], plain[:, [0, 5, 6]])
    assert (voting["after"][:, 1:5] != plain[:, 1:5]).any()
    np.testing.assert_array_equal(both["after"][:, [0, 5, 6]], moved[:, [0, 5, 6]])
    assert (both["after"][:, 1:5] != moved[:, 1:5]).any()
    [found] = detector.predict([validation.folder / validation.images[0]["file_name"]])
    first = voting["after"][voting["after"][:, 0] == validation.images[0]["id"]]
    np.testing.assert_array_equal(first[:, 1:3], found.boxes[:, :2].double())


def test_one_pass_gives_all_that_votes_and_all_that_does_not(
    make_detector: Callable[..., Detector], validation: CocoData
) -> None:
    detector, voting = make_detector(), make_detector()
    link = Link.between(detector, validation)
    choice = Choice("suppression", iou=0.3, above=0.0)
    detector.profile = replace(detector.profile, choice=choice)
    voting.profile = replace(detector.profile, choice=replace(choice, voting=0.5))
    others = {"rescored": Refiner(detector.channels, detector.strides, architecture=SPATIAL)}
    others["rescored"].quality = Quality(others["rescored"].steps, len(detector.category_ids))
    plain = detect.detect(refined(detector), validation, link, others=others)
    voted = detect.detect(refined(voting), validation, link, others=others)
    both = detect.detect(refined(detector), validation, link, others=others, voter=voting)
    assert both.keys() == {*plain, *(f"{name} voted" for name in plain)}
    for name, rows in plain.items():
        np.testing.assert_array_equal(both[name], rows)
        np.testing.assert_array_equal(both[f"{name} voted"], voted["voted" if name == "before" else name])
        assert len(rows) == len(both[f"{name} voted"])
        assert (rows != both[f"{name} voted"]).any()


def test_what_a_refiner_adds_is_told_from_what_voting_and_cutting_add() -> None:
    assert detect.unrefined({"before": 0, "after": 0}) == "before"
    assert detect.unrefined({"before": 0, "voted": 0, "after": 0}) == "voted"
    assert detect.unrefined({"before": 0, "voted": 0, "clipped": 0, "after": 0}) == "clipped"


def test_the_batch_size_does_not_change_which_images_are_evaluated(detector: Detector, validation: CocoData) -> None:
    alone = replace(validation, annotations=[e for e in validation.annotations if e["image_id"] != 2])
    link = Link.between(detector, alone)
    pairs = 12 * len(shapes.CATEGORIES)  # fewer than are kept
    expected = np.repeat([entry["id"] for entry in validation.images], pairs)
    for batch_size in (1, 3, 4):
        rows = detect.detect(detector, alone, link, batch_size=batch_size)["before"]
        np.testing.assert_array_equal(rows[:, 0], expected)


def test_boxes_are_in_pixels_of_the_image_file(make_detector: Callable[..., Detector], validation: CocoData) -> None:
    detector = make_detector()
    rows = detect.detect(detector, validation, Link.between(detector, validation))["before"]
    for entry in validation.images:
        found = detector.predict([validation.folder / entry["file_name"]])[0]
        mine = rows[rows[:, 0] == entry["id"]]
        np.testing.assert_array_equal(mine[:, 5], found.scores.double())
        np.testing.assert_array_equal(mine[:, 1:3], found.boxes[:, :2].double())
        np.testing.assert_allclose(mine[:, 3:5], (found.boxes[:, 2:] - found.boxes[:, :2]).double(), atol=1e-4)


def test_evaluation_gives_the_ap_of_the_rows(detector: Detector, validation: CocoData) -> None:
    link = Link.between(detector, validation)
    rows = detect.detect(refined(detector), validation, link)
    metrics = detect.evaluate(refined(detector), validation, link)
    assert metrics == {stage: coco_ap(validation, found) for stage, found in rows.items()}
    assert detect.evaluate(detector, validation, link) == {"before": metrics["before"]}


@pytest.mark.parametrize("batch_size", [1, 2])
def test_an_unreadable_image_has_no_detections_where_that_is_wished(
    batch_size: int, detector: Detector, validation: CocoData, spoiled_folder: Path
) -> None:
    spoiled = replace(validation, folder=spoiled_folder / "val")
    link = Link.between(detector, spoiled)
    unreadable: list[str] = []
    rows = detect.detect(refined(detector), spoiled, link, batch_size=batch_size, unreadable=unreadable)
    assert [reason.partition(" is ")[0] for reason in unreadable] == [str(spoiled_folder / "val/000001.jpg")]
    whole = detect.detect(refined(detector), validation, link)
    for stage in ("before", "after"):
        others = whole[stage][whole[stage][:, 0] != 2]
        np.testing.assert_array_equal(rows[stage][:, [0, 6]], others[:, [0, 6]])
        np.testing.assert_allclose(rows[stage], others, atol=1e-3)
    metrics = detect.evaluate(refined(detector), spoiled, link, batch_size=batch_size, unreadable=unreadable)
    assert metrics == {stage: coco_ap(spoiled, found) for stage, found in rows.items()}
    assert len(unreadable) == 2
    with pytest.raises(ValueError, match=r"000001\.jpg is not a readable image"):
        detect.detect(detector, spoiled, link, batch_size=batch_size)


def test_no_readable_image_at_all_is_an_error(detector: Detector, validation: CocoData, tmp_path: Path) -> None:
    missing = replace(validation, folder=tmp_path)
    expected = r"^none of 4 images could be read: .*000000\.jpg is not there$"
    with pytest.raises(ValueError, match=expected):
        detect.detect(detector, missing, Link.between(detector, missing), batch_size=3, unreadable=[])


def test_weights_that_are_not_finite_are_told(detector: Detector, shapes_folder: Path) -> None:
    validation = annotations.read(*layout.find(shapes_folder, "val"))
    with torch.no_grad():
        next(p for name, p in detector.named_parameters() if "bbox_embed" in name).fill_(float("nan"))
    with pytest.raises(ValueError, match="a detection in image 1 is not finite; check the detector's weights"):
        detect.evaluate(detector, validation, Link.between(detector, validation))
