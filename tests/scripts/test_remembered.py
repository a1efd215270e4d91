"""What is kept in memory, against what a training without it sees."""

from dataclasses import replace
from types import ModuleType

import torch

from refinebox.data.annotations import CocoData
from refinebox.detection.detector import Detector
from refinebox.evaluation.link import Link
from refinebox.training.lessons import Lessons
from refinebox.training.settings import Settings

SETTINGS = Settings(epochs=2, batch_size=3, augmentation="flip", variants=2)


def test_batches_are_those_of_a_training(script: ModuleType, detector: Detector, training: CocoData) -> None:
    sides = (training.images[0]["height"], training.images[0]["width"])
    alike = [entry for entry in training.images if (entry["height"], entry["width"]) == sides]
    kept = {entry["id"] for entry in alike}
    boxes = [entry for entry in training.annotations if entry["image_id"] in kept]
    lessons = Lessons(detector, replace(training, images=alike, annotations=boxes), SETTINGS)
    memory = script.Memory(lessons)
    for epoch in (0, 1):
        plain, remembered = lessons.batches(epoch), memory.batches(lessons, epoch)
        for [batch], [known] in zip(plain, remembered, strict=True):
            expected, found = lessons.observe(batch), known.observation
            assert known.image_ids == batch.image_ids
            assert known.objects == batch.objects
            assert torch.equal(found.image, expected.image)
            for name in ("boxes", "wanted", "sizes"):
                torch.testing.assert_close(getattr(found, name), getattr(expected, name), atol=1e-5, rtol=1e-5)
            for here, there in zip(found.features, expected.features, strict=True):
                torch.testing.assert_close(here, there, atol=1e-4, rtol=1e-4)


def test_every_validation_image_is_seen_once(script: ModuleType, detector: Detector, validation: CocoData) -> None:
    seen = script.predicted(detector, validation, Link.between(detector, validation))
    assert [image_id for batch, _ in seen for image_id in batch.image_ids] == [each["id"] for each in validation.images]
    assert all(len(output.boxes) == len(batch.image_ids) for batch, output in seen)
