"""An exported file in onnxruntime beside torch: seconds, what the processor worked, and memory.

python scripts/benchmark_export.py            # the bundled detector, and an untrained DAB-DETR-R50 on 800 x 1216
python scripts/benchmark_export.py --quick    # the bundled detector alone
"""

import argparse
import resource
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from benchmark_training import R50, SIZE, random_batch, untrained
from refinebox.adapters.parts.sizes import Sizes
from side_by_side import timed

from refinebox.detection.detector import Detector
from refinebox.detection.zoo import load_detector
from refinebox.refinement.architecture import ARCHITECTURES
from refinebox.refinement.export import export
from refinebox.refinement.exported import open_session
from refinebox.refinement.refined_detector import RefinedDetector
from refinebox.refinement.refiner import Refiner
from refinebox.training.settings import Settings

BUNDLED = "dab-detr-shapes"
BUNDLED_SIZE = 144, 192  # height, width in pixels
STAGES = "frozen", "upgraded"
WAYS = "torch", "onnxruntime"


def measure(quick: bool = False) -> dict[str, float]:
    """``onnxruntime_ratio`` and so on: seconds in onnxruntime over those in torch, and what lies behind them."""
    figures = compare("", None, BUNDLED_SIZE, (1, 8), 5 if quick else 15)
    if not quick:
        figures |= compare("R50, ", R50, SIZE, (1,), 5)
    return figures


def compare(
    name: str, sizes: Sizes | None, size: tuple[int, int], counts: Sequence[int], repeats: int
) -> dict[str, float]:
    """Figures of a detector, frozen and upgraded, for each batch size of ``counts``.

    Args:
        name: what they begin with.
        sizes: of an untrained DAB-DETR; None for the bundled detector.
        size: (height, width) of the images.
        counts: batch sizes.
        repeats: how often each runs.
    """
    figures: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        files = {stage: Path(folder, f"{stage}.onnx") for stage in STAGES}
        for stage, file in files.items():
            export(detector_of(sizes, stage), file)
            figures[f"{name}{stage}, MiB of the file"] = file.stat().st_size / 2**20
        runs = {(stage, way): runner(sizes, stage, way, files[stage]) for stage in STAGES for way in WAYS}
        for count in counts:
            functions = [partial(run, *images_of(count, size)) for run in runs.values()]
            found = dict(zip(runs, timed(functions, repeats), strict=True))
            for (stage, way), seconds in found.items():
                at = f"{name}{stage}, batch {count}, {way}"
                figures |= {f"{at}, s": seconds.wall, f"{at}, CPU s": seconds.cpu}
                figures[f"{at}, peak GiB"] = peak(sizes, stage, way, files[stage], count, size)
            for stage in STAGES:
                ratio = found[stage, "onnxruntime"].cpu / found[stage, "torch"].cpu
                figures[f"{name}onnxruntime_ratio, {stage}, batch {count}"] = ratio
    for key, figure in figures.items():
        print(f"{key:60} {figure:9.3f}", flush=True)
    return figures


def detector_of(sizes: Sizes | None, stage: str) -> Detector:
    """The detector, or the same with an untrained refiner of the default kind."""
    detector = load_detector(BUNDLED) if sizes is None else untrained(sizes)
    if stage == "frozen":
        return detector
    torch.manual_seed(0)
    return RefinedDetector(
        detector, Refiner(detector.channels, detector.strides, Settings().steps, ARCHITECTURES["spatial"])
    )


def runner(sizes: Sizes | None, stage: str, way: str, file: Path) -> Callable[..., Any]:
    """What takes images and their sizes."""
    if way == "torch":
        return detector_of(sizes, stage)
    session = open_session(file.read_bytes())
    return lambda images, inside: session.run(None, {"images": images.numpy(), "sizes": inside.numpy()})


def images_of(count: int, size: tuple[int, int]) -> tuple[torch.Tensor, torch.Tensor]:
    """Random images and their sizes."""
    batch = random_batch([0] * count, size, 1)
    return batch.images, batch.sizes


def peak(sizes: Sizes | None, stage: str, way: str, file: Path, count: int, size: tuple[int, int]) -> float:
    """GiB that a process takes at its peak, above what the libraries do; it is made for this alone."""
    with get_context("forkserver").Pool(1, maxtasksperchild=1) as pool:
        return pool.apply(peak_here, (sizes, stage, way, file, count, size))


def peak_here(sizes: Sizes | None, stage: str, way: str, file: Path, count: int, size: tuple[int, int]) -> float:
    """As :func:`peak`, of this process."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    images, inside = images_of(count, size)
    runner(sizes, stage, way, file)(images, inside)
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 2**20  # Linux counts in KiB


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="the bundled detector alone")
    measure(parser.parse_args().quick)
