"""A few images through every stage, to find out in a minute what would otherwise stop a training in its last hour."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, redirect_stdout
from dataclasses import replace
from io import StringIO
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from refinebox import distributed
from refinebox.data.annotations import CocoData
from refinebox.data.categories import Matching
from refinebox.detection.detector import Detector
from refinebox.evaluation.doubts import named_otherwise
from refinebox.evaluation.link import Link
from refinebox.refinement.refiner_file import load_refiner
from refinebox.training.held_out import Splits
from refinebox.training.settings import ROUNDS, Settings
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
    tensorboard: bool = False,
    strict: bool = False,
) -> str:
    """Trains for two steps and one more epoch from what was written, judges, chooses, and reads the refiner back.

    Held-out images choose where they would in the training, rounds end where it would grow, and there is a quality head
    and a cache where it has them. Everything is written to a temporary folder, which is removed. Returns a line that
    says what it took.

    Raises:
        Exception: whatever the training itself would raise.
    """
    start = time.monotonic()
    count = 2 * settings.batch_size
    few = Splits.of(training, validation, settings).few(count)
    settings = replace(settings, epochs=ROUNDS[0], variants=min(1, settings.variants))
    with shared_folder() as folder, redirect_stdout(StringIO()):  # AP after so few images would only alarm
        report = train(
            detector,
            training,
            validation,
            folder / "run",
            settings,
            categories=categories,
            workers=workers,
            cache=folder / "cache" if cached else None,
            tensorboard=tensorboard,
            strict=strict,
            few=count,
        )
        load_refiner(report.best)
        report.verdict()
    splits = {"training": few.learned, "held-out": few.held_out, "validation": few.validation}
    *others, last = [f"{len(data.images)} {name}" for name, data in splits.items() if data is not None]
    images = f"{', '.join(others)} and {last}"
    strange = named_otherwise(detector, training, Link.between(detector, training, categories))
    took = f"dry run: {images} images twice in {time.monotonic() - start:.0f} s, {memory(detector)}"
    return f"{took}; {strange or 'all went well'}"


@contextmanager
def shared_folder() -> Iterator[Path]:
    """A temporary folder, the same for all processes; the first of them makes it, and removes it after the last."""
    with TemporaryDirectory() if distributed.rank() == 0 else nullcontext("") as own:
        yield Path(distributed.gathered([own])[0])
        distributed.gathered([])


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
