"""What a step learns from, and what it reports."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from refinebox.data.annotations import CocoData
from refinebox.detection.detector import Detector
from refinebox.refinement.architecture import PUBLISHED
from refinebox.training.learner import Learner, observed_losses
from refinebox.training.lessons import Lessons
from refinebox.training.observation import Observation
from refinebox.training.settings import Settings

SETTINGS = Settings(batch_size=3, jitter=1, augmentation="none")


@pytest.fixture
def seen(detector: Detector, training: CocoData) -> Observation:
    """A batch, in which every second prediction is its object and the others lie elsewhere."""
    lessons = Lessons(detector, training, SETTINGS)
    [batch] = next(lessons.batches(0))
    found = lessons.observe(batch)
    boxes = found.wanted.clone()
    boxes[1::2, :2] = (boxes[1::2, :2] + 0.5) % 1
    return replace(found, boxes=boxes)


def losses_of(learner: Learner, seen: Observation, near: Tensor | None, jitter: int = 1) -> Tensor:
    return torch.stack(list(observed_losses(learner.refiner, seen, jitter, len(seen.boxes), "0", near).values()))


def test_matches_far_from_their_object_are_not_learned_from(detector: Detector, seen: Observation) -> None:
    learner = Learner.start(detector, SETTINGS)
    near = seen.overlaps() >= 0.3
    assert near.tolist() == [place % 2 == 0 for place in range(len(near))]
    few = replace(seen, boxes=seen.boxes[near], wanted=seen.wanted[near], image=seen.image[near])
    without = observed_losses(learner.refiner, few, 0, len(seen.boxes), "0")
    found = losses_of(learner, seen, near, jitter=0)
    torch.testing.assert_close(found, torch.stack(list(without.values())))
    assert (losses_of(learner, seen, None, jitter=0) > found).all()
    # jittered copies of all objects stay: they are near by their making
    assert (losses_of(learner, seen, torch.zeros_like(near)) > 0).all()


@pytest.mark.parametrize(("least", "share"), [(0.3, True), (0.0, False)])
def test_their_share_is_reported(least: float, share: bool, detector: Detector, seen: Observation) -> None:
    settings = replace(SETTINGS, least_overlap=least)
    learner = Learner.start(detector, settings)

    class Given:
        image_ids, objects = seen.image_ids, len(seen.boxes)

    found = learner.step(lambda _: seen, [Given()], settings)
    expected = (len(seen.boxes) // 2) / len(seen.boxes) if share else 0.0
    assert found["far_matches"] == pytest.approx(expected)
    assert found["overlap"] == pytest.approx(seen.overlaps().mean().item())
    assert found["loss"] == pytest.approx(sum(value for name, value in found.items() if name.startswith("loss.")))


def test_published_losses_are_those_of_the_paper(detector: Detector, seen: Observation) -> None:
    """The recipe learns from every match, as the authors do."""
    settings = replace(SETTINGS, architecture=PUBLISHED, least_overlap=0.0)
    learner = Learner.start(detector, settings)
    assert (seen.overlaps() >= settings.least_overlap).all()
    torch.testing.assert_close(losses_of(learner, seen, seen.overlaps() >= 0.0), losses_of(learner, seen, None))
