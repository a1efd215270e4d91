"""``refinebox predict``: images in, detections and pictures out."""

from pathlib import Path
from typing import Annotated

import typer

from refinebox.commands.options import DATA, OUTPUT, Device, Ema, LongSide, Model, Results, ShortSide, Weights

EXAMPLE = "Example: refinebox predict better.safetensors photos/ --output predictions"

MOST = 10  # images that could not be read, each told in a line


def predict(
    model: Model,
    inputs: Annotated[list[Path], typer.Argument(help="Images and folders of images.")],
    weights: Weights = None,
    ema: Ema = None,
    results: Results = None,
    recursive: Annotated[
        bool, typer.Option("--recursive", help="Look for images in folders of folders too.", rich_help_panel=DATA)
    ] = False,
    output: Annotated[Path, typer.Option(help="Folder for results.json and pictures/.", rich_help_panel=OUTPUT)] = Path(
        "predictions"
    ),
    threshold: Annotated[
        float, typer.Option(min=0, max=1, help="Lowest score that is drawn.", rich_help_panel=OUTPUT)
    ] = 0.3,
    compare: Annotated[
        bool,
        typer.Option(
            "--compare",
            help="Put close-ups of the boxes that moved most beside each picture.",
            rich_help_panel=OUTPUT,
        ),
    ] = False,
    short_side: ShortSide = None,
    long_side: LongSide = None,
    device: Device = "auto",
) -> None:
    """Detect in images: COCO results, and pictures with the old box dashed and the refined one solid."""
    from refinebox.commands.inputs import load
    from refinebox.report.predictions import predict as run

    detector = load(model, weights, device, short_side, long_side, ema=ema, results=results)
    predicted = run(detector, inputs, output, threshold=threshold, recursive=recursive, compare=compare)
    if predicted.without:
        typer.echo(f"{predicted.without} images have no boxes in {results}", err=True)
    for reason in predicted.skipped[:MOST]:
        typer.echo(f"skipped: {reason}", err=True)
    if len(predicted.skipped) > MOST:
        typer.echo(f"skipped: {len(predicted.skipped) - MOST} more", err=True)
    typer.echo(f"{len(predicted.pictures)} images: {predicted.results}, {output / 'pictures'}")
    if predicted.passed:
        typer.echo(f"passed over: {predicted.passed}")
