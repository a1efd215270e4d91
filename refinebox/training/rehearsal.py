"""Two batches of everything, to find out in a minute what would otherwise stop a training in its second hour."""

import sys
import time
from contextlib import redirect_stdout
from dataclasses import replace
from io import StringIO
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from refinebox.data.annotations import CocoData
from refinebox.data.categories import Matching
from refinebox.detection.detector import Detector
from refinebox.evaluation.doubts import named_otherwise
from refinebox.evaluation.link import Link
from refinebox.refinement.refiner_file import load_refiner
from refinebox.training.settings import Settings
from refinebox.training.train import train


def rehearse(
    detector: Detector,
    training: CocoData,
    validation: CocoData,
    settings: Settings,
    categories: Matching = "check",
    *,
    workers: int = 0,
    cached: bool = False,
    strict: bool = False,
) -> str:
    """Trains for two steps and one more epoch from what was written, evaluates, and reads the refiner back.

    Everything is written to a temporary folder, which is removed. Returns a line that says what it took.

    Raises:
        Exception: whatever the training itself would raise.
    """
    start = time.monotonic()
    with_objects = {entry["image_id"] for entry in training.annotations if not entry["iscrowd"]}
    few = first(training, 2 * settings.batch_size, with_objects), first(validation, 2 * settings.batch_size)
    settings = replace(settings, epochs=2, growing=False, variants=min(1, settings.variants))
    with TemporaryDirectory() as folder, redirect_stdout(StringIO()):  # AP after so few images would only alarm
        report = train(
            detector,
            *few,
            Path(folder, "run"),
            settings,
            categories=categories,
            workers=workers,
            cache=Path(folder, "cache") if cached else None,
            strict=strict,
        )
        load_refiner(report.best)
    images = " and ".join(
        f"{len(data.images)} {name}" for name, data in zip(("training", "validation"), few, strict=True)
    )
    strange = named_otherwise(detector, training, Link.between(detector, training, categories))
    took = f"dry run: {images} images twice in {time.monotonic() - start:.0f} s, {memory(detector)}"
    return f"{took}; {strange or 'all went well'}"


def first(data: CocoData, count: int, among: set[int] | None = None) -> CocoData:
    """The first ``count`` images, of those whose ids are ``among`` if that is given, and their annotations."""
    images = [entry for entry in data.images if among is None or entry["id"] in among][:count]
    ids = {entry["id"] for entry in images}
    return replace(data, images=images, annotations=[entry for entry in data.annotations if entry["image_id"] in ids])


def memory(detector: Detector) -> str:
    """How much memory was held at most, in words."""
    device = next(detector.parameters()).device
    if device.type == "cuda":
        return f"at most {torch.cuda.max_memory_allocated(device) / 2**30:.1f} GiB on the GPU"
    if sys.platform == "win32":  # which does not tell
        return "memory unknown"
    import resource

    unit = 2**30 if sys.platform == "darwin" else 2**20  # macOS counts in bytes, Linux in KiB
    return f"at most {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit:.1f} GiB"
