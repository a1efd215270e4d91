"""``refinebox demo``: the whole tool on data it makes itself."""

import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from refinebox.evaluation.evaluator import Metrics
    from refinebox.training.settings import Settings

DETECTOR = "dab-detr-shapes"
IMAGES = {"train": 850, "val": 120}
PICTURES = 12
METRICS = ("AP", "AP50", "AP75", "APs", "APm", "APl")


def demo(
    output: Annotated[Path, typer.Option(help="Folder for data, runs, pictures and summary.json.")] = Path(
        "refinebox-demo"
    ),
    seed: Annotated[int, typer.Option(min=0, help="Of the generated images and of the training.")] = 0,
) -> None:
    """Everything at once on generated images and the bundled detector: a few minutes on a laptop's CPU."""
    run(output, seed)


def settings() -> "Settings":
    """Of the demo's training."""
    from refinebox.training.settings import Settings

    return Settings(epochs=4, jitter=1, average=0.0, augmentation="flip")


def run(
    output: Path, seed: int = 0, images: Mapping[str, int] = IMAGES, chosen: "Settings | None" = None
) -> dict[str, Any]:
    """Generates data, trains, analyses, applies, evaluates and predicts; writes and returns ``summary.json``'s content.

    Raises:
        FileExistsError: ``output`` is a file, or a folder that is not empty; nothing in it is touched.
        Interrupted: SIGTERM or SIGINT came during the training.
    """
    from refinebox.analysis import oracle
    from refinebox.analysis.swaps import swaps
    from refinebox.commands.console import show
    from refinebox.data import annotations, layout, shapes
    from refinebox.detection.zoo import load_detector, weights_path
    from refinebox.evaluation.detect import evaluate
    from refinebox.evaluation.link import Link
    from refinebox.files import checkpoint
    from refinebox.refinement.upgraded import apply, load
    from refinebox.report.metrics import metrics_table
    from refinebox.report.predictions import before_and_after, predict, save_picture
    from refinebox.training.interruption import Interrupted
    from refinebox.training.train import train

    chosen = replace(chosen or settings(), seed=seed)
    start = time.monotonic()
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise FileExistsError(f"{output} is there already; name another folder with --output, or remove it")
    folder = output / "data"
    for split, count in images.items():
        shapes.generate(folder, split, count, seed)
    training, validation = (annotations.read(*layout.find(folder, split)) for split in ("train", "val"))
    typer.echo(f"train: {training.summary()}\nval: {validation.summary()}")

    detector = load_detector(DETECTOR)
    link = Link.between(detector, validation)
    perfect = oracle.analyse(detector, validation, link, batch_size=chosen.batch_size)
    titles = {swap.title: perfect[swap.name] for swap in swaps() if swap.name in perfect}
    show(metrics_table("What would perfect predictions be worth?", titles, baseline="as is"))

    try:
        report = train(detector, training, validation, output / "run", chosen)
    except Interrupted as error:
        raise Interrupted(f"stopped; the demo starts anew, so remove {output} or name another", error.signal) from error
    typer.echo(report.verdict())
    upgraded = output / "better.safetensors"
    apply(detector, weights_path(DETECTOR), report.best, upgraded, force=True)  # a loss is shown too, not hidden

    model = load(upgraded)
    metrics = evaluate(model, validation, link, batch_size=chosen.batch_size)
    show(metrics_table("The upgraded checkpoint, on the images by which the epoch was chosen", metrics))
    photos = [validation.folder / entry["file_name"] for entry in validation.images[:PICTURES]]
    predicted = predict(model, photos, output / "predictions")
    save_picture(before_and_after(model, photos), output / "before_after.png")

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
        "oracle": {name: short(found) for name, found in perfect.items()},
        "seconds": round(time.monotonic() - start, 1),
        "seed": seed,
        "files": {name: str(path) for name, path in files.items()},
    }
    checkpoint.write_json(output / "summary.json", summary)
    typer.echo(f"{summary['seconds']:.0f} s; look at {files['before_after']} and {output / 'summary.json'}")
    return summary


def short(metrics: "Metrics") -> "Metrics":
    """The metrics that the summary lists."""
    return {name: metrics[name] for name in METRICS}
