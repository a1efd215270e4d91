"""``refinebox predict``: images in, detections and pictures out."""

from pathlib import Path
from typing import Annotated

import typer

from refinebox.commands.options import Device, LongSide, Model, Results, ShortSide, Weights

EXAMPLE = "Example: refinebox predict better.safetensors photos/ --output predictions"


def predict(
    model: Model,
    inputs: Annotated[list[Path], typer.Argument(help="Images and folders of images.")],
    weights: Weights = None,
    results: Results = None,
    output: Annotated[Path, typer.Option(help="Folder for results.json and pictures/.")] = Path("predictions"),
    threshold: Annotated[float, typer.Option(min=0, max=1, help="Lowest score that is drawn.")] = 0.3,
    short_side: ShortSide = None,
    long_side: LongSide = None,
    device: Device = "auto",
) -> None:
    """Detect in images: COCO results, and pictures with the old box dashed and the refined one solid."""
    from refinebox.commands.inputs import load
    from refinebox.report.predictions import predict as run

    predicted = run(load(model, weights, device, short_side, long_side, results), inputs, output, threshold=threshold)
    if predicted.without:
        typer.echo(f"{predicted.without} images have no boxes in {results}", err=True)
    for reason in predicted.skipped:
        typer.echo(f"skipped: {reason}", err=True)
    typer.echo(f"{len(predicted.pictures)} images: {predicted.results}, {output / 'pictures'}")
