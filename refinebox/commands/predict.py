"""``refinebox predict``: images in, detections and pictures out; or detections alone, of millions."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import typer

from refinebox.commands.options import (
    DATA,
    OUTPUT,
    SPEED,
    Device,
    Ema,
    LongSide,
    Model,
    Prompt,
    Results,
    ShortSide,
    Verbose,
    Weights,
)

EXAMPLE = (
    "Examples: refinebox predict better.safetensors photos/ --output predictions; the first half of many images: "
    "refinebox predict better.safetensors photos/ --format parquet --shard 1/2"
)

ALL = "1/1"
LEAST = 0.05  # score, of millions of images
PART = 1000  # images
MOST = 10  # images that could not be read, each told in a line


def predict(
    model: Model,
    inputs: Annotated[list[Path], typer.Argument(help="Images and folders of images.")],
    weights: Weights = None,
    ema: Ema = None,
    prompt: Prompt = None,
    results: Results = None,
    recursive: Annotated[
        bool, typer.Option("--recursive", help="Look for images in folders of folders too.", rich_help_panel=DATA)
    ] = False,
    output: Annotated[
        Path, typer.Option(help="Folder for results.json and pictures/, or for Parquet files.", rich_help_panel=OUTPUT)
    ] = Path("predictions"),
    kind: Annotated[
        Literal["coco", "parquet"],
        typer.Option(
            "--format", help="COCO results and pictures, or Parquet files without pictures.", rich_help_panel=OUTPUT
        ),
    ] = "coco",
    threshold: Annotated[
        float, typer.Option(min=0, max=1, help="Lowest score that is drawn.", rich_help_panel=OUTPUT)
    ] = 0.3,
    min_score: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=1,
            help="Lowest score that is written; by default all are in COCO results, and those from 0.05 in Parquet.",
            rich_help_panel=OUTPUT,
        ),
    ] = None,
    shard: Annotated[
        str,
        typer.Option(
            help="i/n: of n shares of the images the i-th alone, counted from 1. For Parquet.", rich_help_panel=SPEED
        ),
    ] = ALL,
    skip_done: Annotated[
        bool,
        typer.Option(
            "--skip-done", help="Go on: leave out images in the Parquet files of --output.", rich_help_panel=OUTPUT
        ),
    ] = False,
    part_size: Annotated[
        int | None, typer.Option(min=1, help="Images in a Parquet file; 1000 by default.", rich_help_panel=OUTPUT)
    ] = None,
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
    verbose: Verbose = False,
) -> None:
    """Detect in images: COCO results, and pictures with the old box dashed and the refined one solid."""
    from refinebox.commands.inputs import load
    from refinebox.files import place
    from refinebox.report import parquet
    from refinebox.report.predictions import passed_over
    from refinebox.report.predictions import predict as to_coco
    from refinebox.report.shard import Shard, named

    if kind == "parquet":
        parquet.check(output)
        share, images = Shard.of(shard), named(inputs, recursive=recursive)
    elif shard != ALL or skip_done or part_size is not None:
        raise ValueError("--shard, --skip-done and --part-size are for Parquet files; pass --format parquet too")
    if kind == "parquet" and compare:
        raise ValueError("--compare makes pictures, and Parquet files have none; leave out one of them")
    detector = load(model, weights, device, short_side, long_side, ema=ema, prompt=prompt, results=results)
    if kind == "coco":
        place.check_apart([output / "results.json"], [results, weights, Path(model)])
        found = to_coco(
            detector, inputs, output, threshold=threshold, least=min_score or 0.0, recursive=recursive, compare=compare
        )
        tell(found.skipped, found.without, results, verbose=verbose)
        typer.echo(f"{len(found.pictures)} images: {found.results}, {output / 'pictures'}")
        passed = found.passed
    else:
        least = LEAST if min_score is None else min_score
        made_by = parquet.run_of(detector, model_file(model, weights), results, min_score=least, ema=ema)
        share = share.of_process()
        written = parquet.predict_parts(
            detector,
            images,
            parquet.Parts(output, made_by),
            shard=share,
            least=least,
            size=part_size or PART,
            skip_done=skip_done,
        )
        tell(written.unreadable, written.without, results, verbose=verbose)
        older = f"; {written.done} were done" if skip_done else ""
        typer.echo(f"{written.images} images in {len(written.parts)} parts: {output}, shard {share}{older}")
        passed = passed_over(inputs, recursive=recursive)
    if passed:
        typer.echo(f"passed over: {passed}")


def model_file(model: str, weights: Path | None) -> Path | None:
    """The file that a detector was read from, where it was one."""
    from refinebox.detection.zoo import weights_file
    from refinebox.files import hub

    return hub.local(model) if model.endswith(".onnx") else weights_file(model, weights)


def tell(unreadable: Sequence[str], without: int, results: Path | None, *, verbose: bool) -> None:
    """Prints which images have no detections because something else was wrong; unless ``verbose``, the first ones."""
    if without:
        typer.echo(f"{without} images have no boxes in {results}", err=True)
    told = unreadable if verbose else unreadable[:MOST]
    for reason in told:
        typer.echo(f"skipped: {reason}", err=True)
    if len(unreadable) > len(told):
        typer.echo(f"skipped: {len(unreadable) - len(told)} more, which -v names", err=True)
