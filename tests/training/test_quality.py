"""The quality head learns who is the one detection of an object, and leaves the refiner as it was."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from results_files import detections, write

from refinebox.boxes import paired_iou
from refinebox.data.annotations import CocoData
from refinebox.data.batches import Batch
from refinebox.detection.detector import Detector
from refinebox.detection.given import Given
from refinebox.detection.zoo import describe
from refinebox.evaluation.detect import evaluation_batches
from refinebox.evaluation.link import Link
from refinebox.evaluation.results import read_results
from refinebox.refinement.architecture import SPATIAL
from refinebox.refinement.matching import match
from refinebox.refinement.move import clipped
from refinebox.refinement.quality import PAIR, Quality, measured
from refinebox.refinement.refined_detector import RefinedDetector
from refinebox.refinement.refiner import Refiner
from refinebox.training import quality
from refinebox.training.quality import Examples, examples, joined, learn, train_quality


@pytest.fixture
def refiner(detector: Detector) -> Refiner:
    torch.manual_seed(0)
    refiner = Refiner(detector.channels, detector.strides, architecture=SPATIAL)
    torch.nn.init.normal_(refiner.bboxes_refiner.bboxes_deltas.weight, std=0.02)
    return refiner


@pytest.fixture
def batch(detector: Detector, training: CocoData) -> Batch:
    link = Link.between(detector, training)
    [batch] = evaluation_batches(detector, training, link, batch_size=6, workers=0, description="")
    return batch.to(torch.device("cpu"))  # type: ignore[no-any-return]


def test_the_target_is_one_to_one(detector: Detector, refiner: Refiner, batch: Batch) -> None:
    """The detector's own assignment decides; the overlap is that of the refined box; everything else is worth 0."""
    found = examples(detector, refiner, batch)
    output = RefinedDetector(detector, refiner)(batch.images, batch.sizes)
    plain = detector(batch.images, batch.sizes)
    matches = match(detector.scores(plain.logits), plain.boxes, batch.targets, "sigmoid")
    overlaps = paired_iou(clipped(output.boxes)[matches.image, matches.query], matches.boxes)
    assert (overlaps > 0).sum() > 3
    torch.testing.assert_close(found.wanted[found.wanted > 0].sort().values, overlaps[overlaps > 0].sort().values)
    assert len(found.wanted) == output.logits.numel()  # every score of an untrained detector matters


def test_it_learns_what_tells_good_from_bad() -> None:
    generator = torch.Generator().manual_seed(0)
    boxes, pairs = torch.randn(400, measured(3), generator=generator), torch.randn(400, PAIR, generator=generator)
    columns = torch.randint(2, (400,), generator=generator)
    wanted = ((3 * boxes[:, 0] + 2 * pairs[:, 2]).sigmoid() * (columns + 1) / 2).clamp(0, 1)
    head = Quality(3, 2)
    learn(head, Examples(boxes, pairs, columns, wanted), seed=0)
    error = (head(boxes, pairs, columns).sigmoid() - wanted).abs().mean()
    assert error < 0.08 < (wanted.mean() - wanted).abs().mean()


def test_without_examples_nothing_is_learned() -> None:
    head = Quality(3, 2)
    before = {name: tensor.clone() for name, tensor in head.state_dict().items()}
    learn(head, joined([], 3), seed=0)
    assert all(torch.equal(tensor, before[name]) for name, tensor in head.state_dict().items())


def test_the_refiner_stays_and_the_same_seed_gives_the_same_head(
    detector: Detector, refiner: Refiner, training: CocoData, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quality, "STEPS", 5)
    before = {name: tensor.clone() for name, tensor in refiner.state_dict().items()}
    link = Link.between(detector, training)
    heads = [train_quality(detector, refiner, training, link, seed=3, batch_size=2, workers=0) for _ in range(2)]
    assert refiner.quality is None
    assert all(torch.equal(tensor, before[name]) for name, tensor in refiner.state_dict().items())
    assert all(map(torch.equal, heads[0].state_dict().values(), heads[1].state_dict().values()))


def test_many_images_are_not_all_needed(
    detector: Detector, refiner: Refiner, training: CocoData, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []
    real = quality.examples
    monkeypatch.setattr(quality, "IMAGES", 4)
    monkeypatch.setattr(quality, "STEPS", 1)
    monkeypatch.setattr(quality, "examples", lambda *parts: (seen.extend(parts[2].image_ids), real(*parts))[1])
    train_quality(detector, refiner, training, Link.between(detector, training), seed=0, batch_size=3, workers=0)
    assert len(set(seen)) == 4


def test_boxes_of_a_file_are_judged_too(
    detector: Detector, training: CocoData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quality, "STEPS", 1)
    given = Given(detector, describe(detector))
    data = replace(training, given=read_results(write(tmp_path / "results.json", detections(training)), training))
    refiner = Refiner(given.channels, given.strides, architecture=SPATIAL)
    head = train_quality(given, refiner, data, Link.between(given, data), seed=0, batch_size=2, workers=0)
    assert head.of_column.weight.shape[0] == len(given.category_ids)
