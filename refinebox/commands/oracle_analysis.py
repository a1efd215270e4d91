"""``refinebox oracle-analysis``: what would perfect boxes, classes and more be worth?"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from refinebox.commands.options import (
    DATA,
    OUTPUT,
    Annotations,
    BatchSize,
    Boxes,
    Categories,
    Data,
    DetectorName,
    Device,
    Ema,
    Features,
    Images,
    Json,
    LongSide,
    Prompt,
    ShortSide,
    Verbose,
    Weights,
    Workers,
)

if TYPE_CHECKING:
    from refinebox.analysis.analysis import Analysis

EXAMPLE = "Example: refinebox oracle-analysis --results detections.json --data coco/ --html report.html"


def oracle_analysis(
    detector: DetectorName = None,
    results: Annotated[
        Path | None,
        typer.Option(
            help="COCO results file of any detector, instead; or the boxes that --detector takes.", rich_help_panel=DATA
        ),
    ] = None,
    features: Features = None,
    refined: Annotated[
        Path | None, typer.Option(help="COCO results file of the same detector, refined.", rich_help_panel=DATA)
    ] = None,
    weights: Weights = None,
    ema: Ema = None,
    prompt: Prompt = None,
    data: Data = None,
    annotations: Annotations = None,
    images: Images = None,
    categories: Categories = "check",
    boxes: Boxes = None,
    min_iou: Annotated[float, typer.Option(min=0.1, max=0.95, help="What a refiner needs of a box.")] = 0.5,
    lvis: Annotated[bool, typer.Option("--lvis", help="Evaluate as LVIS does.")] = False,
    short_side: ShortSide = None,
    long_side: LongSide = None,
    batch_size: BatchSize = 1,
    workers: Workers = 0,
    device: Device = "auto",
    json_file: Json = None,
    csv_file: Annotated[
        Path | None, typer.Option("--csv", help="Write a line for each category.", rich_help_panel=OUTPUT)
    ] = None,
    html_file: Annotated[
        Path | None, typer.Option("--html", help="Write a report with pictures.", rich_help_panel=OUTPUT)
    ] = None,
    verbose: Verbose = False,
) -> None:
    """Swap predicted classes, boxes and more for the truth: where is AP lost, and would better boxes help?"""
    from refinebox.analysis import analysis
    from refinebox.commands.inputs import load, read_split
    from refinebox.files import place

    written = [path for path in (json_file, csv_file, html_file) if path is not None]
    for path in written:
        place.check_file(path)
    if len({path.resolve() for path in written}) < len(written):
        raise ValueError("two of --json, --csv and --html are one file; name one for each")
    model = None
    if detector is not None or features is not None:
        model = load(
            detector, weights, device, short_side, long_side, ema=ema, prompt=prompt, results=results, features=features
        )
    alone, given = (results, None) if model is None else (None, results)
    truth = read_split("val", data, annotations, images, images_needed=alone is None, boxes=boxes, results=given)
    place.check_apart(written, [results, refined, truth.source, weights, None if detector is None else Path(detector)])
    done = analysis.run(
        truth,
        model,
        alone,
        refined,
        categories,
        boxes=boxes,
        min_iou=min_iou,
        lvis=lvis,
        batch_size=batch_size,
        workers=workers,
    )
    publish(done, json_file, csv_file, html_file, verbose=verbose)


def publish(
    analysis: "Analysis",
    json_file: Path | None,
    csv_file: Path | None,
    html_file: Path | None,
    *,
    verbose: bool = False,
) -> None:
    """Writes the files that are named, each whole or not at all, and prints the tables and the rules behind them."""
    from refinebox.commands.console import offered, show
    from refinebox.files import checkpoint
    from refinebox.report import tables
    from refinebox.report.headline import headline
    from refinebox.report.page import page

    if json_file is not None:
        checkpoint.write_json(json_file, tables.to_json(analysis))
    if csv_file is not None:
        checkpoint.write_bytes(csv_file, tables.to_csv(analysis).encode())
    if html_file is not None:
        checkpoint.write_bytes(html_file, page(analysis).encode())
    for line in (*analysis.remarks, headline(analysis)):
        typer.echo(line)
    hidden = show(tables.swaps_table(analysis), width=150, whole=verbose)
    typer.echo("\n".join((*analysis.found.rules, tables.NOTE, f"Evaluated by {analysis.evaluated_by}.")))
    show(tables.errors_table(analysis))
    if verbose:
        show(tables.swap_thresholds_table(analysis), width=150)
    show(tables.categories_table(analysis, None if verbose else tables.TOP))
    if not verbose:
        count = len(analysis.data.categories)
        rest = [f"all {count} categories"] if count > tables.TOP else []
        typer.echo(offered([*hidden, "AP at every IoU threshold", *rest]))
    for line in tables.comparison_lines(analysis):
        typer.echo(line)
    if written := [str(path) for path in (json_file, csv_file, html_file) if path is not None]:
        typer.echo(f"wrote {', '.join(written)}")
