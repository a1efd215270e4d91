"""``refinebox train``: a refiner for a frozen detector."""

import shlex
from pathlib import Path
from typing import Annotated, Literal

import typer

from refinebox.commands.options import (
    Annotations,
    Categories,
    Data,
    DetectorName,
    Device,
    Features,
    Images,
    LongSide,
    Results,
    ShortSide,
    Weights,
    Workers,
)

EXAMPLE = "Example: refinebox train --detector dab-detr-r50 --weights dab.pth --data coco/ --output runs/first"


def train(
    ctx: typer.Context,
    detector: DetectorName = None,
    weights: Weights = None,
    features: Features = None,
    results: Results = None,
    val_results: Annotated[
        Path | None, typer.Option(help="The same of the validation images; --results is of the training images.")
    ] = None,
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

    if (results is None) != (val_results is None) or (features is not None and results is None):
        raise ValueError("boxes of a file are needed of both splits: pass --results FILE and --val-results FILE")
    model = load(detector, weights, device, short_side, long_side, results, features)
    chosen = settings.choose(recipe, ctx.params, cached=cache is not None, device=next(model.parameters()).device)
    splits = (
        read_split("train", data, annotations, images, strict=strict, results=results),
        read_split("val", data, val_annotations, val_images, strict=strict, results=val_results),
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
    named = ["--features", features] if detector is None else ["--detector", detector]
    source = [*named, *(["--weights", str(weights)] if weights else [])]
    arguments = [*source, "--refiner", str(report.best), "--output", "better.safetensors"]
    typer.echo(f"{report.verdict()}; next: {shlex.join(['refinebox', 'apply', *arguments])}")
