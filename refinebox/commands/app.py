"""The command line: parse, call, print. Nothing here imports torch before a command runs."""

import os
import shlex
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from typer.core import TyperGroup

import refinebox
from refinebox.commands import memory
from refinebox.commands.options import (
    Annotations,
    BatchSize,
    Categories,
    Data,
    DetectorName,
    Device,
    Images,
    Json,
    LongSide,
    Model,
    ShortSide,
    Weights,
    Workers,
)
from refinebox.training.interruption import Interrupted

EXPECTED_ERRORS = (ValueError, OSError, FloatingPointError, MemoryError, Interrupted)


class OneLineErrors(TyperGroup):
    """Turns what a user can put right into one line and exit code 2; REFINEBOX_DEBUG=1 shows the traceback."""

    def invoke(self, ctx: Any) -> Any:
        try:
            with memory.advice(ctx):
                return super().invoke(ctx)
        except EXPECTED_ERRORS as error:
            if os.environ.get("REFINEBOX_DEBUG"):
                raise
            typer.echo(f"refinebox: {one_line(error)}", err=True)
            raise typer.Exit(getattr(error, "exit_code", 2)) from error


def one_line(error: Exception) -> str:
    """The message, without the traceback that a data-loading process puts before it."""
    text = str(error)
    if text.startswith("Caught "):
        text = text.strip().splitlines()[-1].partition(": ")[2]
    return " ".join(text.split())


app = typer.Typer(cls=OneLineErrors, no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)


def _version(show: bool) -> None:
    if show:
        typer.echo(refinebox.__version__)
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Better boxes from a detector that stays as it is."""


@app.command()
def demo(
    output: Annotated[Path, typer.Option(help="Folder for data, runs, pictures and summary.json.")] = Path(
        "refinebox-demo"
    ),
    seed: Annotated[int, typer.Option(min=0, help="Of the generated images and of the training.")] = 0,
) -> None:
    """Everything at once on generated images and the bundled detector: a few minutes on a laptop's CPU."""
    from refinebox.commands.demo import run

    run(output, seed)


@app.command()
def detectors() -> None:
    """List the detectors that have a name: AP as published, where the weights are, and what a refiner reaches."""
    from refinebox.detection.published import print_detectors

    print_detectors()


@app.command(
    "oracle-analysis",
    epilog="Example: refinebox oracle-analysis --results detections.json --data coco/ --html report.html",
)
def oracle_analysis(
    detector: Annotated[str | None, typer.Option(help="A detector's name, or a file that refinebox wrote.")] = None,
    results: Annotated[Path | None, typer.Option(help="COCO results file of any detector, instead.")] = None,
    refined: Annotated[Path | None, typer.Option(help="COCO results file of the same detector, refined.")] = None,
    weights: Weights = None,
    data: Data = None,
    annotations: Annotations = None,
    images: Images = None,
    categories: Categories = "check",
    min_iou: Annotated[float, typer.Option(min=0.1, max=0.95, help="What a refiner needs of a box.")] = 0.5,
    lvis: Annotated[bool, typer.Option("--lvis", help="Evaluate as LVIS does.")] = False,
    short_side: ShortSide = None,
    long_side: LongSide = None,
    batch_size: BatchSize = 1,
    workers: Workers = 0,
    device: Device = "auto",
    json_file: Json = None,
    csv_file: Annotated[Path | None, typer.Option("--csv", help="Write a line for each category.")] = None,
    html_file: Annotated[Path | None, typer.Option("--html", help="Write a report with pictures.")] = None,
) -> None:
    """Swap predicted classes, boxes and more for the truth: where is AP lost, and would better boxes help?"""
    from refinebox.analysis import analysis
    from refinebox.commands.inputs import check_output_file, load, read_split
    from refinebox.commands.publish import publish

    check_output_file(json_file, csv_file, html_file)
    model = load(detector, weights, device, short_side, long_side) if detector else None
    truth = read_split("val", data, annotations, images, images_needed=results is None)
    done = analysis.run(
        truth, model, results, refined, categories, min_iou=min_iou, lvis=lvis, batch_size=batch_size, workers=workers
    )
    publish(done, json_file, csv_file, html_file)


@app.command(
    epilog="Example: refinebox train --detector dab-detr-r50 --weights dab.pth --data coco/ --output runs/first"
)
def train(
    ctx: typer.Context,
    detector: DetectorName,
    weights: Weights = None,
    data: Data = None,
    annotations: Annotations = None,
    images: Images = None,
    val_annotations: Annotated[
        Path | None, typer.Option(help="COCO annotation file of the validation images, instead of --data.")
    ] = None,
    val_images: Annotated[Path | None, typer.Option(help="Folder of the validation images.")] = None,
    output: Annotated[Path, typer.Option(help="Folder of the run.")] = Path("runs/refiner"),
    resume: Annotated[bool, typer.Option("--resume", help="Continue the interrupted run in --output.")] = False,
    recipe: Annotated[
        Literal["default", "published"],
        typer.Option(help="Settings to start from; the options below change single ones."),
    ] = "default",
    epochs: Annotated[int | None, typer.Option(min=1, help="Passes over the training images. Default 12.")] = None,
    batch_size: Annotated[int | None, typer.Option(min=1, help="Images in a step. Default 4, published 16.")] = None,
    learning_rate: Annotated[
        float | None, typer.Option(min=0, help="AdamW's, at its highest. Default 0.0015, published 0.0001.")
    ] = None,
    weight_decay: Annotated[
        float | None, typer.Option(min=0, help="AdamW's; normalisation layers do not decay. Default 0.0001.")
    ] = None,
    schedule: Annotated[
        Literal["step", "cosine"] | None,
        typer.Option(
            help="cosine: warm-up, then down to zero, the default; step: a tenth in the last twelfth, published."
        ),
    ] = None,
    clip_norm: Annotated[
        float | None, typer.Option(min=0, help="Largest L2 norm of the gradient. Default 1, published 0.1.")
    ] = None,
    jitter: Annotated[
        int | None, typer.Option(min=0, help="Moved copies of every object to learn from too. Default 2, published 0.")
    ] = None,
    average: Annotated[
        float | None,
        typer.Option(
            min=0, max=1, help="Decay of the weights' moving average, 0 for none. Default 0.998, published 0."
        ),
    ] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="How often the refiner moves each box. Default 3.")] = None,
    accumulate: Annotated[
        int | None, typer.Option(min=1, help="Cut each batch into so many parts to save memory.")
    ] = None,
    augmentation: Annotated[
        Literal["multiscale", "flip", "none"] | None,
        typer.Option(help="multiscale: DETR's flips, sizes and crops, the default."),
    ] = None,
    variants: Annotated[
        int | None,
        typer.Option(
            min=0,
            help="Augmentations of each image, used in turn; 0: ever new ones. Default 0, with --cache 1, 2 or 4.",
        ),
    ] = None,
    precision: Annotated[
        Literal["float32", "bfloat16"] | None, typer.Option(help="Of the frozen detector; by default bfloat16 on GPUs.")
    ] = None,
    compile: Annotated[
        bool, typer.Option("--compile", help="Compile the detector: minutes first, faster then.")
    ] = False,
    seed: Annotated[int | None, typer.Option(help="Of the initial weights, the order and the augmentation.")] = None,
    cache: Annotated[
        Path | None, typer.Option(help="Folder to keep what the detector saw, so that later epochs need not run it.")
    ] = None,
    cache_size: Annotated[float, typer.Option(min=0, help="Gigabytes that this folder may take.")] = 100,
    tensorboard: Annotated[bool, typer.Option("--tensorboard", help="Write event files for TensorBoard too.")] = False,
    strict: Annotated[bool, typer.Option("--strict", help="Stop at an image that cannot be read.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Two batches of everything, then exit.")] = False,
    short_side: ShortSide = None,
    long_side: LongSide = None,
    categories: Categories = "check",
    workers: Workers = 0,
    device: Device = "auto",
) -> None:
    """Train a refiner; the detector stays as it is."""
    from refinebox.commands.inputs import load, read_split
    from refinebox.training import settings
    from refinebox.training.rehearsal import rehearse
    from refinebox.training.train import train as run

    model = load(detector, weights, device, short_side, long_side)
    chosen = settings.choose(recipe, ctx.params, cached=cache is not None, device=next(model.parameters()).device)
    splits = (
        read_split("train", data, annotations, images, strict=strict),
        read_split("val", data, val_annotations, val_images, strict=strict),
    )
    if dry_run:
        typer.echo(rehearse(model, *splits, chosen, categories, workers=workers, cached=bool(cache), strict=strict))
        return
    report = run(
        model,
        *splits,
        output,
        chosen,
        categories=categories,
        workers=workers,
        continued=resume,
        cache=cache,
        cache_limit=cache_size * 1e9,
        tensorboard=tensorboard,
        strict=strict,
    )
    source = ["--detector", detector, *(["--weights", str(weights)] if weights else [])]
    arguments = [*source, "--refiner", str(report.best), "--output", "better.safetensors"]
    typer.echo(f"{report.verdict()}; next: {shlex.join(['refinebox', 'apply', *arguments])}")


@app.command(epilog="Example: refinebox apply --detector dab-detr-r50 --refiner published --output better.safetensors")
def apply(
    detector: DetectorName,
    refiner: Annotated[
        str,
        typer.Option(help="best.safetensors of a run, a published model_final.pth, or the word published."),
    ],
    output: Annotated[Path, typer.Option(help="The upgraded checkpoint to write.")],
    weights: Weights = None,
    force: Annotated[
        bool, typer.Option("--force", help="Even if the refiner is of other weights or made validation AP worse.")
    ] = False,
) -> None:
    """Turn a checkpoint into an upgraded one: detector and refiner in one file."""
    from refinebox.commands.inputs import load
    from refinebox.detection.zoo import is_custom, weights_path
    from refinebox.refinement.upgraded import apply as upgrade
    from refinebox.refinement.upgraded import published_refiner

    refiner_file = published_refiner(detector, weights, force=force) if refiner == "published" else Path(refiner)
    model = load(detector, weights, "cpu")
    detector_file = None if is_custom(detector) else weights_path(detector, weights)
    metadata = upgrade(model, detector_file, refiner_file, output, force=force)
    before, after = metadata["before"], metadata["after"]
    known = (
        f"validation AP {before['AP']:.1f} → {after['AP']:.1f}"
        if before and after
        else "its AP is not known; run refinebox eval"
    )
    typer.echo(f"wrote {output}: {known}")


@app.command("eval", epilog="Example: refinebox eval better.safetensors --data coco/ --json figures.json")
def evaluate(
    model: Model,
    weights: Weights = None,
    data: Data = None,
    annotations: Annotations = None,
    images: Images = None,
    categories: Categories = "check",
    short_side: ShortSide = None,
    long_side: LongSide = None,
    batch_size: BatchSize = 1,
    workers: Workers = 0,
    device: Device = "auto",
    output: Annotated[
        Path, typer.Option(help="Folder for before.json and after.json in COCO's results format.")
    ] = Path("results"),
    json_file: Json = None,
) -> None:
    """AP before and after refinement, side by side, and COCO results files."""
    from refinebox.commands.inputs import check_output_file, check_output_folder, load, read_split
    from refinebox.evaluation.detect import detect
    from refinebox.evaluation.evaluator import coco_ap
    from refinebox.evaluation.link import Link
    from refinebox.evaluation.rows import to_results
    from refinebox.files import checkpoint
    from refinebox.report.metrics import print_table

    check_output_file(json_file)
    check_output_folder(output)
    detector = load(model, weights, device, short_side, long_side)
    validation = read_split("val", data, annotations, images)
    link = Link.between(detector, validation, categories)
    rows = detect(detector, validation, link, batch_size=batch_size, workers=workers)
    metrics = {stage: coco_ap(validation, found) for stage, found in rows.items()}
    print_table(f"{detector.profile.name}: AP in points (faster-coco-eval)", metrics, baseline="before")
    for stage, found in rows.items():
        checkpoint.write_json(output / f"{stage}.json", to_results(found))
    if json_file is not None:
        checkpoint.write_json(json_file, metrics)


@app.command(epilog="Example: refinebox predict better.safetensors photos/ --output predictions")
def predict(
    model: Model,
    inputs: Annotated[list[Path], typer.Argument(help="Images and folders of images.")],
    weights: Weights = None,
    output: Annotated[Path, typer.Option(help="Folder for results.json and pictures/.")] = Path("predictions"),
    threshold: Annotated[float, typer.Option(min=0, max=1, help="Lowest score that is drawn.")] = 0.3,
    short_side: ShortSide = None,
    long_side: LongSide = None,
    device: Device = "auto",
) -> None:
    """Detect in images: COCO results, and pictures with the old box dashed and the refined one solid."""
    from refinebox.commands.inputs import load
    from refinebox.commands.predict import predict as run

    predicted = run(load(model, weights, device, short_side, long_side), inputs, output, threshold=threshold)
    for reason in predicted.skipped:
        typer.echo(f"skipped: {reason}", err=True)
    typer.echo(f"{len(predicted.pictures)} images: {predicted.results}, {output / 'pictures'}")
