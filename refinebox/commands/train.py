"""``refinebox train``: a refiner for a frozen detector."""

import shlex
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import typer

from refinebox.commands.options import (
    DATA,
    OUTPUT,
    RECIPE,
    SPEED,
    Annotations,
    Boxes,
    Categories,
    Data,
    DetectorName,
    Device,
    Ema,
    Features,
    Images,
    LongSide,
    Prompt,
    Results,
    ShortSide,
    Weights,
    Workers,
)

EXAMPLE = "Example: refinebox train --detector dab-detr-r50 --weights dab.pth --data coco/ --output runs/first"


def number_of_epochs(text: str) -> int | str:
    """A whole number from 1, or ``auto``."""
    if text == "auto" or (text.isdigit() and int(text) > 0):
        return text if text == "auto" else int(text)
    raise typer.BadParameter(f"{text!r} is neither a number from 1 nor auto")


def train(
    ctx: typer.Context,
    detector: DetectorName = None,
    weights: Weights = None,
    ema: Ema = None,
    prompt: Prompt = None,
    features: Features = None,
    results: Results = None,
    val_results: Annotated[
        Path | None,
        typer.Option(
            help="The same of the validation images; --results is of the training images.", rich_help_panel=DATA
        ),
    ] = None,
    data: Data = None,
    annotations: Annotations = None,
    images: Images = None,
    val_annotations: Annotated[
        Path | None,
        typer.Option(help="COCO annotation file of the validation images, instead of --data.", rich_help_panel=DATA),
    ] = None,
    val_images: Annotated[
        Path | None, typer.Option(help="Folder of the validation images.", rich_help_panel=DATA)
    ] = None,
    val_fraction: Annotated[
        float,
        typer.Option(
            min=0,
            max=0.9,
            help="Keep this share of the training images for validation, instead of naming others; --seed says which.",
            rich_help_panel=DATA,
        ),
    ] = 0,
    output: Annotated[Path, typer.Option(help="Folder of the run.", rich_help_panel=OUTPUT)] = Path("runs/refiner"),
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue the interrupted run in --output.", rich_help_panel=OUTPUT)
    ] = False,
    recipe: Annotated[
        Literal["default", "published", "0.1.0"],
        typer.Option(
            help="Settings to start from, the paper's or version 0.1.0's; the options below change single ones.",
            rich_help_panel=RECIPE,
        ),
    ] = "default",
    epochs: Annotated[
        str | None,
        typer.Option(
            metavar="N|auto",
            parser=number_of_epochs,
            help="Passes over the training images, or auto: until images that decide gain no more. Default 12.",
            rich_help_panel=RECIPE,
        ),
    ] = None,
    batch_size: Annotated[
        int | None, typer.Option(min=1, help="Images in a step. Default 4, published 16.", rich_help_panel=RECIPE)
    ] = None,
    learning_rate: Annotated[
        float | None,
        typer.Option(min=0, help="AdamW's, at its highest. Default 0.0015, published 0.0001.", rich_help_panel=RECIPE),
    ] = None,
    weight_decay: Annotated[
        float | None,
        typer.Option(min=0, help="AdamW's; normalisation layers do not decay. Default 0.0001.", rich_help_panel=RECIPE),
    ] = None,
    schedule: Annotated[
        Literal["step", "cosine"] | None,
        typer.Option(
            help="cosine: warm-up, then down to zero, the default; step: a tenth in the last twelfth, published.",
            rich_help_panel=RECIPE,
        ),
    ] = None,
    clip_norm: Annotated[
        float | None,
        typer.Option(
            min=1e-6, help="Largest L2 norm of the gradient. Default 1, published 0.1.", rich_help_panel=RECIPE
        ),
    ] = None,
    jitter: Annotated[
        int | None,
        typer.Option(
            min=0,
            help="Moved copies of every object to learn from too. Default 2, published 0.",
            rich_help_panel=RECIPE,
        ),
    ] = None,
    average: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=0.99999,  # of 1 it would stay what it was before the first step
            help="Decay of the weights' moving average, 0 for none. Default 0.998, published 0.",
            rich_help_panel=RECIPE,
        ),
    ] = None,
    held_out: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=0.5,
            help="Share of the training images that is not learned from and decides whether the refiner is worth it. "
            "Default 0.1, published 0.",
            rich_help_panel=RECIPE,
        ),
    ] = None,
    quality: Annotated[
        bool,
        typer.Option(
            "--quality",
            help="Also learn how good the refined boxes are, and change scores by that.",
            rich_help_panel=RECIPE,
        ),
    ] = False,
    steps: Annotated[
        int | None,
        typer.Option(min=1, help="How often the refiner moves each box. Default 3.", rich_help_panel=RECIPE),
    ] = None,
    accumulate: Annotated[
        int | None, typer.Option(min=1, help="Cut each batch into so many parts to save memory.", rich_help_panel=SPEED)
    ] = None,
    augmentation: Annotated[
        Literal["multiscale", "flip", "none"] | None,
        typer.Option(help="multiscale: DETR's flips, sizes and crops, the default.", rich_help_panel=RECIPE),
    ] = None,
    variants: Annotated[
        int | None,
        typer.Option(
            min=0,
            help="Augmentations of each image, used in turn; 0: ever new ones. Default 0, with --cache 1, 2 or 4.",
            rich_help_panel=RECIPE,
        ),
    ] = None,
    precision: Annotated[
        Literal["float32", "bfloat16"] | None,
        typer.Option(help="Of the frozen detector; by default bfloat16 on GPUs.", rich_help_panel=SPEED),
    ] = None,
    compile: Annotated[
        bool, typer.Option("--compile", help="Compile the detector: minutes first, faster then.", rich_help_panel=SPEED)
    ] = False,
    seed: Annotated[
        int | None,
        typer.Option(
            min=0,
            max=2**63 - 1,
            help="Of the initial weights, the order and the augmentation.",
            rich_help_panel=RECIPE,
        ),
    ] = None,
    cache: Annotated[
        Path | None,
        typer.Option(
            help="Folder to keep what the detector saw, so that later epochs need not run it.", rich_help_panel=SPEED
        ),
    ] = None,
    cache_size: Annotated[
        float, typer.Option(min=0, help="Gigabytes that this folder may take.", rich_help_panel=SPEED)
    ] = 100,
    tensorboard: Annotated[
        bool, typer.Option("--tensorboard", help="Write event files for TensorBoard too.", rich_help_panel=OUTPUT)
    ] = False,
    strict: Annotated[
        bool, typer.Option("--strict", help="Stop at an image that cannot be read.", rich_help_panel=DATA)
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="A few images through every stage, then exit.", rich_help_panel=OUTPUT)
    ] = False,
    short_side: ShortSide = None,
    long_side: LongSide = None,
    categories: Categories = "check",
    boxes: Boxes = None,
    workers: Workers = 0,
    device: Device = "auto",
) -> None:
    """Train a refiner; the detector stays as it is."""
    from refinebox.commands.inputs import load, read_split, training_splits
    from refinebox.evaluation.doubts import beforehand
    from refinebox.evaluation.link import Link
    from refinebox.training import settings
    from refinebox.training.rehearsal import rehearse
    from refinebox.training.run import check_place
    from refinebox.training.train import train as run

    if (results is None and (features or val_results)) or (results and not val_results and not val_fraction):
        raise ValueError("boxes of a file are needed of both splits: pass --results FILE and --val-results FILE")
    check_place(output, continued=resume)
    model = load(
        detector, weights, device, short_side, long_side, ema=ema, prompt=prompt, results=results, features=features
    )
    chosen = settings.choose(recipe, ctx.params, cached=cache is not None, device=next(model.parameters()).device)
    given = {"train": results, "val": val_results}
    read = partial(read_split, strict=strict, boxes=boxes, given=given)
    named = (data, annotations, images), (data, val_annotations, val_images)
    splits = training_splits(read, *named, val_fraction, chosen.seed)
    for name, split in zip(("train", "val"), splits, strict=True):
        for doubt in beforehand(model, split, Link.between(model, split, categories)):
            typer.echo(f"{name}: {doubt}")
    if dry_run:
        line = rehearse(
            model,
            *splits,
            chosen,
            categories,
            workers=workers,
            cached=cache is not None,
            tensorboard=tensorboard,
            strict=strict,
        )
        typer.echo(line)
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
    named_by = ["--features", str(features)] if detector is None else ["--detector", detector]
    following = next_command(named_by, weights, ema, report.best)
    typer.echo(report.verdict())
    if report.sound:
        typer.echo(f"next: {following}")


def next_command(named_by: list[str], weights: Path | None, ema: bool | None, refiner: Path) -> str:
    """What makes an upgraded checkpoint of the refiner, to be pasted into a shell."""
    source = [*named_by, *(["--weights", str(weights)] if weights else [])]
    source += [] if ema is None else ["--ema" if ema else "--no-ema"]
    arguments = [*source, "--refiner", str(refiner), "--output", "better.safetensors"]
    return shlex.join(["refinebox", "apply", *arguments])
