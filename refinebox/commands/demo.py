"""The whole tool on data it makes itself: the bundled detector, a new refiner, and what changed."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from PIL import Image

from refinebox.analysis import oracle
from refinebox.commands.predict import detect_image, predict, save_picture
from refinebox.data import annotations, shapes
from refinebox.data.images import read_image
from refinebox.detection.detector import Detector
from refinebox.detection.zoo import load_detector, weights_path
from refinebox.evaluation import detect
from refinebox.evaluation.evaluator import Metrics
from refinebox.evaluation.link import Link
from refinebox.files import checkpoint
from refinebox.refinement.upgraded import apply, load
from refinebox.report.metrics import print_table
from refinebox.report.pictures import detection_layers, montage, picture
from refinebox.training.interruption import Interrupted
from refinebox.training.settings import Settings
from refinebox.training.train import train

DETECTOR = "dab-detr-shapes"
IMAGES = {"train": 850, "val": 120}
SETTINGS = Settings(epochs=7, batch_size=3, augmentation="flip")
PICTURES = 12
METRICS = ("AP", "AP50", "AP75", "APs", "APm", "APl")


def run(
    output: Path, seed: int = 0, images: Mapping[str, int] = IMAGES, settings: Settings = SETTINGS
) -> dict[str, Any]:
    """Generates data, trains, analyses, applies, evaluates and predicts; writes and returns ``summary.json``'s content.

    Raises:
        FileExistsError: ``output`` is a file, or a folder that is not empty; nothing in it is touched.
        Interrupted: SIGTERM or SIGINT came during the training.
    """
    start = time.monotonic()
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise FileExistsError(f"{output} is there already; name another folder with --output, or remove it")
    folder = output / "data"
    for split, count in images.items():
        shapes.generate(folder, split, count, seed)
    training, validation = (annotations.read(*annotations.find(folder, split)) for split in ("train", "val"))
    print(f"train: {training.summary()}\nval: {validation.summary()}")

    detector = load_detector(DETECTOR)
    link = Link.between(detector, validation)
    swaps = oracle.analyse(detector, validation, link, batch_size=settings.batch_size)
    print_table(
        "What would perfect predictions be worth?",
        {swap.title: swaps[swap.name] for swap in oracle.SWAPS},
        baseline="as is",
    )

    try:
        report = train(detector, training, validation, output / "run", replace(settings, seed=seed))
    except Interrupted as error:
        raise Interrupted(f"stopped; the demo starts anew, so remove {output} or name another", error.signal) from error
    print(report.verdict())
    upgraded = output / "better.safetensors"
    apply(detector, weights_path(DETECTOR), report.best, upgraded, force=True)  # a loss is shown too, not hidden

    model = load(upgraded)
    metrics = detect.evaluate(model, validation, link, batch_size=settings.batch_size)
    print_table("The upgraded checkpoint", metrics, baseline="before")
    chosen = [validation.folder / entry["file_name"] for entry in validation.images[:PICTURES]]
    predicted = predict(model, chosen, output / "predictions")
    save_picture(before_and_after(model, chosen), output / "before_after.png")

    files = {
        "data": folder,
        "run": output / "run",
        "refiner": report.best,
        "upgraded": upgraded,
        "results": predicted.results,
        "pictures": output / "predictions" / "pictures",
        "before_after": output / "before_after.png",
    }
    summary = {
        **{stage: short(found) for stage, found in metrics.items()},
        "oracle": {name: short(found) for name, found in swaps.items()},
        "seconds": round(time.monotonic() - start, 1),
        "seed": seed,
        "files": {name: str(path) for name, path in files.items()},
    }
    checkpoint.write_json(output / "summary.json", summary)
    print(f"{summary['seconds']:.0f} s; look at {files['before_after']} and {output / 'summary.json'}")
    return summary


def short(metrics: Metrics) -> Metrics:
    """The metrics that the summary lists."""
    return {name: metrics[name] for name in METRICS}


def before_and_after(model: Detector, paths: Sequence[Path], columns: int = 4) -> Image.Image:
    """The images whose boxes moved, side by side: dashed as detected, solid as refined."""
    pictures = []
    for path in paths:
        image = read_image(path)
        found = detect_image(model, image)
        pictures.append(picture(image, detection_layers(found["before"], found["after"], model.category_names, 0.4)))
    return montage(pictures, columns)
