"""A detector that takes boxes."""

import weakref
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from results_files import detections, write

from refinebox.data.annotations import CocoData
from refinebox.data.proposals import Found, Proposals, RowsByImage
from refinebox.detection.detector import Detector
from refinebox.detection.given import Given
from refinebox.detection.zoo import describe
from refinebox.evaluation.detect import detect
from refinebox.evaluation.evaluator import coco_ap
from refinebox.evaluation.link import Link
from refinebox.evaluation.results import read_results
from refinebox.refinement.matching import match
from refinebox.report.parquet import Parts, predict_parts
from refinebox.report.predictions import predict
from refinebox.report.shard import Shard


@pytest.fixture
def given(detector: Detector) -> Given:
    return Given(detector, describe(detector))


def test_features_are_those_of_the_source(given: Given, detector: Detector) -> None:
    assert (given.strides, given.channels) == (detector.strides, detector.channels)
    images, sizes = torch.randn(2, 3, 64, 80), torch.tensor([[64, 80], [50, 40]])
    proposals = Proposals(torch.rand(2, 3, 4), torch.zeros(2, 3, 0))
    output = given(images, sizes, proposals)
    assert output.boxes is proposals.boxes
    assert all(map(torch.equal, output.features, detector.features(images, sizes)))
    assert all(map(torch.equal, given.features(images, sizes), output.features))
    assert given.weights_sha256() == detector.weights_sha256()


def test_nothing_can_be_trained(given: Given) -> None:
    assert given.train(True) is given
    assert not any(module.training for module in given.modules())
    assert not any(parameter.requires_grad for parameter in given.parameters())


def test_without_boxes_it_says_what_it_needs(given: Given, validation: CocoData) -> None:
    expected = r"come from a results file, and none is named; pass --results FILE$"
    with pytest.raises(ValueError, match=expected):
        given(torch.zeros(1, 3, 64, 64), torch.tensor([[64, 64]]))
    with pytest.raises(ValueError, match=expected):
        given.proposals(validation, {})
    with pytest.raises(ValueError, match=expected):
        given.predict([Image.new("RGB", (64, 64))])


def test_one_that_finds_its_own_takes_none(detector: Detector, validation: CocoData) -> None:
    assert detector.proposals(validation, {}) is None
    assert detector.proposals_in([Path("a.jpg")]) == [None]
    with pytest.raises(ValueError, match=r"^tiny finds its own boxes; leave out the results file x\.json$"):
        detector.take(Path("x.json"))


@pytest.mark.parametrize("batch_size", [1, 4])
def test_the_files_detections_are_the_detectors(
    batch_size: int, given: Given, validation: CocoData, tmp_path: Path
) -> None:
    """Every row comes out again, with ties in the file's order, and AP is that of the file."""
    entries = detections(validation)
    entries += [{**entry, "bbox": [value + 3 for value in entry["bbox"]]} for entry in entries]  # every score twice
    entries[0]["bbox"] = [-20.0, 5.0, 300.0, 50.0]
    entries[1] |= {"bbox": [5.0, 5.0, 0.0, 9.0], "score": 0.0}
    rows = read_results(write(tmp_path / "results.json", entries), validation)
    data = replace(validation, given=rows)
    link = Link.between(given, data)
    assert given.category_names == validation.categories
    found = detect(given, data, link, batch_size=batch_size)["before"]
    np.testing.assert_allclose(found[np.lexsort(found.T)], rows[np.lexsort(rows.T)], atol=1e-3)
    assert coco_ap(data, found) == pytest.approx(coco_ap(data, rows))


def test_scores_are_made_of_one_image_at_a_time(
    given: Given, validation: CocoData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are dense, and those of all images of a large results file do not fit into memory."""
    paths = [validation.folder / entry["file_name"] for entry in validation.images]
    sizes = [(entry["width"], entry["height"]) for entry in validation.images]
    for place, size in enumerate(sizes * 2):
        paths.append(tmp_path / f"more {place}.png")
        Image.new("RGB", size).save(paths[-1])
    entries = [
        {"image_id": place, "file_name": path.name, "category_id": 1 + place % 6, "bbox": [1, 2, 30, 40], "score": 0.5}
        for place, path in enumerate(paths[:-1])
    ]
    given.take(write(tmp_path / "results.json", entries))
    made, alive = RowsByImage.__getitem__, []
    most = 0

    def counted(self: RowsByImage, image_id: int) -> Found:
        nonlocal most
        found = made(self, image_id)
        alive.append(weakref.ref(found.scores))
        most = max(most, sum(scores() is not None for scores in alive))
        return found

    monkeypatch.setattr(RowsByImage, "__getitem__", counted)
    assert len(given.proposals_in(paths)) == len(paths)
    assert [len(each.boxes) for each in given.proposals_in(paths)[-2:]] == [1, 0]
    assert predict(given, paths, tmp_path / "out").without == 1
    parts = Parts(tmp_path / "parts", {})
    written = predict_parts(given, {path.name: path for path in paths}, parts, shard=Shard(1, 1))
    assert (written.images, written.without) == (len(paths), 1)
    assert len(given.predict(paths)) == len(paths)
    assert len(alive) == 2 + 3 * len(paths)
    assert most <= 2  # the next is made before the last is forgotten


def test_a_resized_source_sees_other_images(make_detector: Callable[..., Detector]) -> None:
    detector = make_detector()
    given = Given(detector, describe(detector))
    given.resize(96, None)
    assert detector.profile.input == given.profile.input
    assert given.preprocess(Image.new("RGB", (200, 192))).shape[1] == 96


def test_rows_that_fill_a_batch_are_matched_with_nothing(validation: CocoData) -> None:
    from refinebox.data.batches import Target

    boxes = torch.tensor([[[0.2, 0.2, 0.1, 0.1], [0.5, 0.5, 0.5, 0.5]]])
    target = Target(torch.tensor([[0.5, 0.5, 0.5, 0.5]]), torch.tensor([0]))
    matches = match(torch.tensor([[[0.3], [0.0]]]), boxes, [target], "probability")
    assert matches.query.tolist() == [0]
    assert match(torch.zeros(1, 0, 1), boxes[:, :0], [target], "probability").query.tolist() == []
