"""What a million images cost: CPU seconds from the file to the row, and bytes of Parquet.

python scripts/benchmark_scale.py            # DAB-DETR-R50 on photographs of 480 x 640
python scripts/benchmark_scale.py --quick    # fewer repeats
"""

import argparse
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from benchmark_training import PHOTOGRAPH, R50, kinds, photographs, untrained
from side_by_side import timed

from refinebox.data.images import read_image
from refinebox.detection.detector import Detector
from refinebox.refinement.refined_detector import RefinedDetector
from refinebox.report.columns import empty_row
from refinebox.report.parquet import Parts
from refinebox.report.returned import row_of
from refinebox.report.shard import Shard

DETECTIONS = 30  # of an image with a score of 0.05 and more
PART = 1000


def measure(quick: bool = False) -> dict[str, float]:
    """``core hours a million images`` and what lies behind it; other keys say what they are and in which unit."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with tempfile.TemporaryDirectory() as folder:
            figures = steps(untrained(R50), Path(folder), PHOTOGRAPH, 2 if quick else 7)
            figures |= written(Path(folder), PART, 3 if quick else 10)
    finally:
        torch.set_num_threads(threads)
    seconds = figures["detection and refinement, CPU ms an image"] + figures["writing, CPU ms an image"]
    figures["core hours a million images"] = seconds / 1000 * 1e6 / 3600
    for name, figure in figures.items():
        print(f"{name:60} {figure:9.2f}", flush=True)
    return figures


def steps(detector: Detector, folder: Path, size: tuple[int, int], repeats: int) -> dict[str, float]:
    """From the file to the row, of a JPEG file of ``size`` (height, width), in turn."""
    upgraded = RefinedDetector(detector, kinds(detector)["spatial"])
    photograph = photographs(folder, 1, size)
    path = folder / photograph.images[0]["file_name"]
    work: dict[str, Callable[[], object]] = {
        "reading": lambda: detector.preprocess(read_image(path)),
        "detection": partial(row_of, detector, "a", path, 0.0),
        "detection and refinement": partial(row_of, upgraded, "a", path, 0.0),
    }
    found = timed(list(work.values()), repeats)
    return {f"{name}, CPU ms an image": 1000 * seconds.cpu for name, seconds in zip(work, found, strict=True)}


def written(folder: Path, count: int, repeats: int) -> dict[str, float]:
    """A part of ``count`` images with random detections, which compress less than real ones."""
    generator = torch.Generator().manual_seed(0)
    rows = [{**empty_row(f"folder/{index:012}.jpg"), **random_row(generator)} for index in range(count)]
    parts = Parts(folder / "parts", {})
    [seconds] = timed([lambda: parts.write(rows, Shard())], repeats)
    size = parts.write(rows, Shard()).stat().st_size
    return {"writing, CPU ms an image": 1000 * seconds.cpu / count, "bytes a detection": size / count / DETECTIONS}


def random_row(generator: torch.Generator) -> dict[str, Any]:
    """The detections of an image of 480 x 640."""
    boxes, scores = 640 * torch.rand(DETECTIONS, 4, generator=generator), torch.rand(DETECTIONS, generator=generator)
    labels, moved = torch.randint(80, (DETECTIONS,), generator=generator), torch.rand(DETECTIONS, generator=generator)
    found = {"boxes": boxes, "scores": scores, "labels": labels, "moved": moved}
    return {"width": 640, "height": 480, **{name: tensor.tolist() for name, tensor in found.items()}}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer repeats")
    measure(parser.parse_args().quick)
