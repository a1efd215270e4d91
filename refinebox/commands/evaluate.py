"""``refinebox eval``: AP before and after refinement."""

from pathlib import Path
from typing import Annotated

import typer

from refinebox.commands.options import (
    OUTPUT,
    Annotations,
    BatchSize,
    Boxes,
    Categories,
    Data,
    Device,
    Ema,
    Images,
    Json,
    LongSide,
    Model,
    Prompt,
    Results,
    ShortSide,
    Verbose,
    Weights,
    Workers,
)

STAGES = ("before", "clipped", "voted", "after")
EXAMPLE = "Example: refinebox eval better.safetensors --data coco/ --json figures.json"


def evaluate(
    model: Model,
    weights: Weights = None,
    ema: Ema = None,
    prompt: Prompt = None,
    results: Results = None,
    data: Data = None,
    annotations: Annotations = None,
    images: Images = None,
    categories: Categories = "check",
    boxes: Boxes = None,
    short_side: ShortSide = None,
    long_side: LongSide = None,
    batch_size: BatchSize = 1,
    workers: Workers = 0,
    device: Device = "auto",
    output: Annotated[
        Path,
        typer.Option(
            help="Folder for before.json, after.json and the like in COCO's results format.", rich_help_panel=OUTPUT
        ),
    ] = Path("results"),
    json_file: Json = None,
    verbose: Verbose = False,
) -> None:
    """AP before and after refinement, side by side, and COCO results files."""
    from refinebox.commands.console import offered, show
    from refinebox.commands.inputs import load, read_split
    from refinebox.evaluation.bootstrap import difference
    from refinebox.evaluation.detect import detect, unrefined
    from refinebox.evaluation.doubts import doubts, no_measure
    from refinebox.evaluation.evaluator import Evaluator, points
    from refinebox.evaluation.link import Link
    from refinebox.evaluation.rows import to_results
    from refinebox.files import checkpoint, place
    from refinebox.refinement.change import change
    from refinebox.report.metrics import categories_table, metrics_table, thresholds_table

    place.check_folder(output)
    written = [output / f"{stage}.json" for stage in STAGES] + ([] if json_file is None else [json_file])
    for path in written:
        place.check_file(path)
    detector = load(model, weights, device, short_side, long_side, ema=ema, prompt=prompt, results=results)
    validation = read_split("val", data, annotations, images, boxes=boxes, results=results)
    place.check_apart(written, [results, validation.source, weights, Path(model)])
    link = Link.between(detector, validation, categories)
    evaluate = Evaluator(validation)
    rows = detect(detector, validation, link, batch_size=batch_size, workers=workers)
    for stage, found in rows.items():  # before anything else can fail
        checkpoint.write_json(output / f"{stage}.json", to_results(found, validation))
    evaluations = {stage: evaluate(found) for stage, found in rows.items()}
    metrics = {stage: found.metrics for stage, found in evaluations.items()}
    if json_file is not None:
        checkpoint.write_json(json_file, metrics)
    for doubt in doubts(detector, validation, link, rows["before"]):
        typer.echo(f"{detector.profile.name}: {doubt}")
    own, caveat = unrefined(rows), no_measure(detector, validation)
    baseline = None if caveat else own
    title = f"{detector.profile.name}: AP in points ({evaluate.backend.name})"
    hidden = show(metrics_table(title, metrics, baseline=baseline), width=150, whole=verbose)
    if verbose:
        show(thresholds_table(evaluations, baseline=baseline))
        show(categories_table(validation.categories, evaluations, baseline=baseline))
    else:
        typer.echo(offered([*hidden, "AP at every IoU threshold", "of every category"]))
    if "after" in rows and metrics["after"]["AP"] is not None:
        before, after = points(metrics[own]), points(metrics["after"])
        if caveat:
            typer.echo(f"AP {before:.1f} → {after:.1f}; {caveat}")
        else:
            luck = difference(validation, rows[own], rows["after"])
            gain = change(before, after, luck.low, luck.high)
            typer.echo(f"AP {gain}, over {luck.resamples:,} resamples of the images")
    typer.echo("wrote " + ", ".join(str(output / f"{stage}.json") for stage in rows))
