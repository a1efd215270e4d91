"""What an epoch takes without a cache, from cached boxes, and from cached boxes and cells.

python scripts/benchmark_epochs.py            # DAB-DETR-R50 on images of 800 x 1216
python scripts/benchmark_epochs.py --quick    # fewer images
"""

import argparse
import math
import tempfile
from functools import partial
from pathlib import Path

import torch
from benchmark_training import OBJECTS, R50, SIZE, photographs, random_boxes
from refinebox.adapters.dab_detr import DabDetr, build
from refinebox.adapters.parts.sizes import Sizes
from side_by_side import KINDS, one_thread, timed

from refinebox.boxes import inverse_sigmoid
from refinebox.data.annotations import CocoData
from refinebox.data.batches import cut, loaded
from refinebox.data.dataset import CocoDataset
from refinebox.data.input_format import InputFormat
from refinebox.detection.detector import Detector
from refinebox.detection.profile import Profile
from refinebox.training import observation
from refinebox.training.cache import Cache
from refinebox.training.learner import Learner
from refinebox.training.settings import Settings

SETTINGS = Settings(batch_size=2, augmentation="none", variants=1)


def measure(quick: bool = False) -> dict[str, float]:
    """``cached_epoch_ratio`` and what lies behind it; other keys say what they are and in which unit."""
    with tempfile.TemporaryDirectory() as folder:
        figures = epochs(anchored(R50), Path(folder), 4 if quick else 8, SIZE, 2 if quick else 5)
    for name, figure in figures.items():
        print(f"{name:60} {figure:9.3f}", flush=True)
    return figures


def epochs(detector: Detector, folder: Path, count: int, size: tuple[int, int], repeats: int) -> dict[str, float]:
    """Epochs over ``count`` images of ``size`` (height, width), all of which are in both caches from the start.

    The ratios are of CPU seconds, on one thread.
    """
    data = with_objects(photographs(folder, count, size))
    dataset = CocoDataset(data, {1: 0}, form=InputFormat(short_side=min(size), long_side=max(size)), keep_empty=False)
    reach = SETTINGS.architecture.enlargement
    boxes, cells = (
        Cache(folder / name, limit, detector, dataset, reach) for name, limit in (("boxes", 0.0), ("cells", math.inf))
    )
    sources = {"no cache": dataset, "cached boxes": boxes, "cached boxes and cells": cells}
    learner = Learner.start(detector, SETTINGS)
    with one_thread():
        found = timed([partial(epoch, detector, learner, source) for source in sources.values()], repeats)
    figures = {
        f"epoch of {count} images, {name}, {kind}": getattr(seconds, of)
        for name, seconds in zip(sources, found, strict=True)
        for kind, of in KINDS.items()
    }
    figures["MB of cells an image"] = sum(file.stat().st_size for file in (folder / "cells").rglob("*.*")) / count / 1e6
    none, boxes_alone, all_cells = (seconds.cpu for seconds in found)
    figures["cached_epoch_ratio with boxes alone"] = boxes_alone / none
    return figures | {"cached_epoch_ratio": all_cells / none}


def epoch(detector: Detector, learner: Learner, source: CocoDataset | Cache) -> None:
    """Every image once, as :mod:`refinebox.training.train` does it."""
    observe = partial(source.observe if isinstance(source, Cache) else observation.observe, detector)
    for batch in loaded(source, cut(range(len(source)), SETTINGS.batch_size)):
        learner.step(observe, [batch.to(torch.device("cpu"))], SETTINGS)


def anchored(sizes: Sizes) -> Detector:
    """A frozen DAB-DETR of random weights that predicts its anchors, which are of all sizes and lie everywhere.

    So objects are matched with boxes near them, as a trained detector's are.
    """
    torch.manual_seed(0)
    state = DabDetr(sizes).state_dict()
    state["refpoint_embed.weight"] = inverse_sigmoid(random_boxes(sizes.queries, torch.Generator().manual_seed(0)))
    for name in ("weight", "bias"):
        state[f"bbox_embed.layers.2.{name}"].zero_()
    return build(state, Profile(name="anchored", family="dab_detr"))


def with_objects(data: CocoData) -> CocoData:
    """The same images with 7 objects each, small and large."""
    generator = torch.Generator().manual_seed(1)
    for image in data.images:
        whwh = torch.tensor([image["width"], image["height"]] * 2)
        for x, y, width, height in (random_boxes(OBJECTS, generator) * whwh).tolist():
            box = [x - width / 2, y - height / 2, width, height]
            data.annotations.append(
                {"id": len(data.annotations) + 1, "image_id": image["id"], "category_id": 1, "bbox": box, "iscrowd": 0}
            )
    return data


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer images and repeats")
    measure(parser.parse_args().quick)
