"""What refining costs beside the frozen detector: in prediction, in training, in loading images and in memory.

python scripts/benchmark_training.py            # an untrained DAB-DETR-R50 on random images of 800 x 1216
python scripts/benchmark_training.py --quick    # fewer repeats, batch 1
"""

import argparse
import resource
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from reference_refinement import reference_losses
from refinebox.adapters.dab_detr import DabDetr, build
from refinebox.adapters.parts.backbone import ResNetSizes
from refinebox.adapters.parts.sizes import Sizes
from side_by_side import KINDS, one_thread, side_by_side, timed
from torch import Tensor

from refinebox.data import shapes
from refinebox.data.annotations import CocoData
from refinebox.data.batches import Batch, Target, cut, loaded
from refinebox.data.dataset import CocoDataset
from refinebox.detection.detector import Detector
from refinebox.detection.output import DetectorOutput
from refinebox.detection.profile import Profile
from refinebox.refinement.architecture import ARCHITECTURES
from refinebox.refinement.quality import Quality
from refinebox.refinement.refined_detector import RefinedDetector
from refinebox.refinement.refiner import Refiner
from refinebox.training.learner import Learner, observed_losses
from refinebox.training.observation import observe
from refinebox.training.settings import PUBLISHED, Settings

R50 = Sizes(
    ResNetSizes(
        bottleneck=True, stem=64, depths=(3, 4, 6, 3), inner=(64, 128, 256, 512), channels=(256, 512, 1024, 2048)
    ),
    width=256,
    feedforward=2048,
    encoder_layers=6,
    decoder_layers=6,
    queries=300,
    columns=91,
)
CPU = torch.device("cpu")
SIZE = 800, 1216  # height, width of an image
SMALL = 400, 608  # where 16 images' features are held at once
PHOTOGRAPH = 480, 640  # of a JPEG file
OBJECTS = 7  # of an image, as COCO has on average
CROWD = [round(count) for count in np.linspace(1, 40, 16)]  # objects of each image where they differ most


def measure(quick: bool = False) -> dict[str, float]:
    """``latency_ratio``, ``train_step_ratio``, ``refine_step_speedup``, and what lies behind them.

    Other keys say what they are and in which unit.
    """
    detector = untrained(R50)
    repeats = 3 if quick else 7
    figures: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        parts: list[Callable[[], dict[str, float]]] = [
            lambda: latency(detector, (1,) if quick else (1, 8), SIZE, repeats),
            lambda: added(detector, SIZE, repeats),
            lambda: training(detector, 1 if quick else 2, SIZE, repeats),
            lambda: refinement(detector, CROWD, SMALL, repeats),
            lambda: loading(detector, Path(folder), 96 if quick else 384, PHOTOGRAPH, repeats),
            lambda: memory(R50, (1, 2, 4), SIZE, steps=1 if quick else 3),
        ]
        for part in parts:
            found = part()
            for name, figure in found.items():
                print(f"{name:60} {figure:9.3f}", flush=True)
            figures |= found
    return figures


def latency(detector: Detector, sizes: Sequence[int], size: tuple[int, int], repeats: int) -> dict[str, float]:
    """The upgraded detector, which refines 100 boxes, over the frozen one, for each batch size of ``sizes``."""
    upgraded = RefinedDetector(detector, kinds(detector)["spatial"])
    figures: dict[str, float] = {}
    for count in sizes:
        batch = random_batch([0] * count, size, 1)
        seconds = side_by_side([partial(model, batch.images, batch.sizes) for model in (detector, upgraded)], repeats)
        at = "" if count == 1 else f" at batch {count}"
        figures |= {f"frozen detector{at}, s": seconds[0], f"upgraded detector{at}, s": seconds[1]}
        figures[f"latency_ratio{at}"] = seconds[1] / seconds[0]
    return figures


def added(detector: Detector, size: tuple[int, int], repeats: int) -> dict[str, float]:
    """What refining 100 boxes of an image takes, over the frozen detector: CPU seconds of one thread, in alternation.

    Other work on the machine lengthens neither, so that it is this figure that has a goal (0.08). The boxes lie around
    a few objects, as real ones do, and therefore read a part of the finest map; in the worst case they lie everywhere.
    """
    batch = random_batch([0], size, 1)
    models = {name: RefinedDetector(detector, refiner) for name, refiner in kinds(detector).items()}
    with one_thread():
        output, generator = detector(batch.images, batch.sizes), torch.Generator().manual_seed(3)
        count = output.boxes.shape[1]
        crowded = replace(output, boxes=boxes_near(random_boxes(OBJECTS, generator), count, generator)[None])
        everywhere = replace(output, boxes=random_boxes(count, generator)[None])
        refining = [partial(model.refined, crowded, batch.sizes) for model in models.values()]
        worst = partial(models["spatial"].refined, everywhere, batch.sizes)
        frozen, *found = timed([partial(detector, batch.images, batch.sizes), *refining, worst], repeats)
    figures = {"frozen detector, CPU s": frozen.cpu}
    for name, seconds in zip([*models, "spatial, boxes everywhere"], found, strict=True):
        figures |= {f"refining, {name}, CPU s": seconds.cpu, f"added_cost, {name}": seconds.cpu / frozen.cpu}
    return figures | {"added_cost": figures["added_cost, spatial with quality"]}


def kinds(detector: Detector) -> dict[str, Refiner]:
    """Untrained refiners as published and of the default recipe, and the latter with the quality head."""
    made = {}
    for name, parts, steps in (
        ("published", "published", PUBLISHED.steps),
        ("spatial", "spatial", Settings().steps),
        ("spatial with quality", "spatial", Settings().steps),
    ):
        made[name] = Refiner(detector.channels, detector.strides, steps, ARCHITECTURES[parts])
    made["spatial with quality"].quality = Quality(Settings().steps, len(detector.category_ids))
    return made


def training(detector: Detector, count: int, size: tuple[int, int], repeats: int) -> dict[str, float]:
    """One step of training on ``count`` images of 7 objects, from images to new weights, over the frozen detector.

    The ratios are of CPU seconds, on one thread.
    """
    batch = random_batch([OBJECTS] * count, size, len(detector.category_ids))
    learners = {settings: Learner.start(detector, settings) for settings in (Settings(), PUBLISHED)}
    steps = [
        partial(learner.step, partial(observe, detector), [batch], settings) for settings, learner in learners.items()
    ]
    with one_thread():
        found = timed([lambda: detector(batch.images, batch.sizes), *steps], repeats)
    figures = {}
    for name, seconds in zip(("frozen detector", "training step", "training step as published"), found, strict=True):
        figures |= {f"{name}, {count} images, {kind}": getattr(seconds, of) for kind, of in KINDS.items()}
    frozen, default, published = (seconds.cpu for seconds in found)
    return figures | {"train_step_ratio": default / frozen, "train_step_ratio as published": published / frozen}


def refinement(detector: Detector, objects: Sequence[int], size: tuple[int, int], repeats: int) -> dict[str, float]:
    """The published training's way to losses and gradients over ours, the detector's output being there already.

    Raises:
        ValueError: the two do not find the same losses.
    """
    batch = random_batch(objects, size, len(detector.category_ids))
    output = detector(batch.images, batch.sizes)
    recorded, batch = Recorded(detector, output), replace(batch, images=batch.images[:, :, :1, :1])
    refiner = Refiner(detector.channels, detector.strides)
    ways: list[Callable[[], dict[str, Tensor]]] = [
        lambda: observed_losses(refiner, observe(recorded, batch)),
        lambda: reference_losses(refiner, output, batch),
        lambda: reference_losses(refiner, output, batch, pyramid_at_every_move=True),
    ]
    ours, *theirs = [torch.stack(list(way().values())).sum().item() for way in ways]
    if any(abs(loss - ours) > 1e-4 * ours for loss in theirs):
        raise ValueError(f"our loss is {ours}, the reference's {theirs}; expected the same, the comparison is void")
    seconds = side_by_side([partial(gradients, refiner, way) for way in ways], repeats)
    return {
        "our refinement step, s": seconds[0],
        "reference refinement step, s": seconds[1],
        "reference with a pyramid at every move, s": seconds[2],
        "refine_step_speedup": seconds[1] / seconds[0],
        "refine_step_speedup with a pyramid at every move": seconds[2] / seconds[0],
    }


def loading(
    detector: Detector, folder: Path, count: int, size: tuple[int, int], repeats: int, batch_size: int = 2
) -> dict[str, float]:
    """Images read, resized, batched and normalised in a second, without and with two workers, and detected."""
    profile = detector.profile
    dataset = CocoDataset(photographs(folder, count, size), {}, form=profile.input)
    batch = next(iter(loaded(dataset, [range(batch_size)]))).to(CPU)
    loads = [partial(load, dataset, batch_size, workers) for workers in (0, 2)]
    seconds = side_by_side([*loads, lambda: detector(batch.images, batch.sizes)], repeats)
    return {
        "images loaded a second, no workers": count / seconds[0],
        "images loaded a second, 2 workers": count / seconds[1],
        "images a second of the frozen detector": batch_size / seconds[2],
    }


def load(dataset: CocoDataset, batch_size: int, workers: int) -> None:
    """Goes through all batches and keeps none."""
    for batch in loaded(dataset, cut(range(len(dataset)), batch_size), workers):
        batch.to(CPU)


def memory(sizes: Sizes, counts: Sequence[int], size: tuple[int, int], steps: int) -> dict[str, float]:
    """GiB that training takes at its peak, for each batch size of ``counts``, each in a process of its own.

    The processes come from a small server, because a process that this one started itself would inherit its peak.
    """
    with get_context("forkserver").Pool(1, maxtasksperchild=1) as pool:
        peaks = pool.map(partial(peak_memory, sizes, size, steps), counts, chunksize=1)
    return {f"peak GiB of training at batch {count}": peak for count, peak in zip(counts, peaks, strict=True)}


def peak_memory(sizes: Sizes, size: tuple[int, int], steps: int, count: int) -> float:
    """GiB that this process held at most after ``steps`` of training on ``count`` images."""
    detector = untrained(sizes)
    learner = Learner.start(detector, Settings())
    batch = random_batch([OBJECTS] * count, size, len(detector.category_ids))
    for _ in range(steps):
        learner.step(partial(observe, detector), [batch], Settings())
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20  # Linux counts in KiB


class Recorded(Detector):
    """A detector that answers everything with the output it was given."""

    def __init__(self, detector: Detector, output: DetectorOutput) -> None:
        super().__init__(detector.profile)
        self.output = output

    def detect(self, images: Tensor, sizes: Tensor) -> DetectorOutput:
        return self.output


def gradients(refiner: Refiner, losses: Callable[[], dict[str, Tensor]]) -> None:
    """Losses and their gradients, as every step computes them."""
    refiner.zero_grad()
    torch.stack(list(losses().values())).sum().backward()  # type: ignore[no-untyped-call]


def untrained(sizes: Sizes) -> Detector:
    """A frozen DAB-DETR of random weights."""
    torch.manual_seed(0)
    return build(DabDetr(sizes).state_dict(), Profile(name="untrained", family="dab_detr"))


def random_batch(objects: Sequence[int], size: tuple[int, int], columns: int) -> Batch:
    """Random images of ``size`` (height, width) with as many objects each as ``objects`` says, small and large."""
    generator = torch.Generator().manual_seed(0)
    targets = []
    for count in objects:
        boxes = random_boxes(count, generator)
        targets.append(Target(boxes, torch.randint(columns, (count,), generator=generator)))
    sizes = torch.tensor([size] * len(objects))
    images = torch.randn(len(objects), 3, *size, generator=generator)
    return Batch(images, sizes, sizes, targets, list(range(len(objects))))


def random_boxes(count: int, generator: torch.Generator) -> Tensor:
    """``[count, 4]`` cxcywh, fractions of the image, which they do not pass: sides of 2 to 50 %."""
    sides = 0.02 * 25 ** torch.rand(count, 2, generator=generator)
    return torch.cat([sides / 2 + (1 - sides) * torch.rand(count, 2, generator=generator), sides], dim=1)


def boxes_near(objects: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """``[count, 4]`` copies of ``objects`` ``[N, 4]`` (cxcywh, fractions), off by up to a fifth of their sides."""
    noise = 0.4 * (torch.rand(count, 4, generator=generator) - 0.5)
    chosen = objects[torch.randint(len(objects), (count,), generator=generator)]
    return torch.cat([chosen[:, :2] + noise[:, :2] * chosen[:, 2:], chosen[:, 2:] * (1 + noise[:, 2:])], dim=1)


def photographs(folder: Path, count: int, size: tuple[int, int]) -> CocoData:
    """JPEG files of ``size`` (height, width) and a COCO image's 150 KB, without objects, written to ``folder``."""
    random, height, width = np.random.default_rng(0), *size
    entries = []
    for index in range(count):
        pixels = shapes.texture(random, height, width) + 13 * random.standard_normal((height, width, 3))
        entries.append({"id": index + 1, "file_name": f"{index}.jpg", "height": height, "width": width})
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / f"{index}.jpg", quality=92)
    return CocoData(entries, [], {}, folder, {})


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer repeats, batch 1")
    measure(parser.parse_args().quick)
