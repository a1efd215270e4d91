"""``refinebox refine``: a results file in, a better one out."""

import shlex
from pathlib import Path
from typing import Annotated

import typer

from refinebox.commands.options import (
    BatchSize,
    Boxes,
    Categories,
    Device,
    LongSide,
    Model,
    ShortSide,
    Weights,
    Workers,
)

EXAMPLE = (
    "Example: refinebox refine better.safetensors --results detections.json --images photos/ --output refined.json"
)


def refine(
    model: Model,
    results: Annotated[Path, typer.Option(help="COCO results file: the detections whose boxes are to be better.")],
    images: Annotated[Path, typer.Option(help="Folder of the images that they are in.")],
    output: Annotated[Path, typer.Option(help="The results file to write.")],
    weights: Weights = None,
    annotations: Annotated[
        Path | None,
        typer.Option(help="COCO annotation file that says which file each image id is, where the ids are no names."),
    ] = None,
    categories: Categories = "check",
    boxes: Boxes = None,
    short_side: ShortSide = None,
    long_side: LongSide = None,
    batch_size: BatchSize = 1,
    workers: Workers = 0,
    device: Device = "auto",
) -> None:
    """Move the boxes of a results file; ids, order, labels and everything else in it stay as they are."""
    from refinebox.commands.inputs import image_data, load, tell_about
    from refinebox.data import results_file
    from refinebox.data.tally import Tally
    from refinebox.evaluation.link import Link
    from refinebox.evaluation.refined_results import matched, refine_results
    from refinebox.files import checkpoint, place

    place.check_file(output)
    place.check_apart([output], [results, annotations, weights, Path(model)])
    detector = load(model, weights, device, short_side, long_side, results=results)
    entries = results_file.read_entries(results)
    names = {number: detector.category_names.get(number, str(number)) for number in detector.category_ids}
    data = image_data(images, annotations, names)
    tally = Tally()
    found = matched(entries, data, str(results), categories, tally, boxes)
    tell_about(results, found.rows, tally)
    link = Link.between(detector, data, categories)
    done = refine_results(detector, entries, found, data, link, batch_size=batch_size, workers=workers)
    for reason in done.unreadable:
        typer.echo(f"kept as they are: detections in an image that could not be read: {reason}", err=True)
    checkpoint.write_json(output, done.entries)
    typer.echo(f"wrote {output}: {len(done.entries):,} detections, of which {done.moved:,} moved")
    files = shlex.join(["--results", str(results), "--refined", str(output)])
    typer.echo(f"next: refinebox oracle-analysis {files} --data DATA")
