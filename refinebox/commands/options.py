"""Arguments and options that several commands share."""

from pathlib import Path
from typing import Annotated, Literal

import typer

DetectorName = Annotated[
    str | None,
    typer.Option(
        "--detector",
        help="A name that `refinebox detectors` lists, a file that refinebox wrote, a folder that transformers wrote, "
        "or package.module:function that returns a detector.",
    ),
]
Weights = Annotated[
    Path | None,
    typer.Option(help="The detector's checkpoint in any published layout, instead of downloading the published one."),
]
Features = Annotated[
    str | None,
    typer.Option(
        "--features",
        help="Instead of --detector, what gives feature maps to the boxes of --results: a detector's name, "
        "torchvision:resnet50, or timm:NAME; --weights are then its own.",
    ),
]
Results = Annotated[
    Path | None,
    typer.Option("--results", help="COCO results file whose boxes are taken, where the detector finds none itself."),
]
Model = Annotated[str, typer.Argument(help="An upgraded checkpoint, or a detector's name as for --detector.")]
Data = Annotated[
    Path | None,
    typer.Option("--data", help="Folder in COCO's layout: annotations/instances_*.json beside the image folders."),
]
Annotations = Annotated[Path | None, typer.Option(help="COCO annotation file, instead of --data.")]
Images = Annotated[Path | None, typer.Option(help="Folder of its images.")]
Categories = Annotated[
    Literal["check", "id", "name", "order"],
    typer.Option(help="Match the data's categories with the detector's by id and name, id, name, or order of the ids."),
]
BatchSize = Annotated[int, typer.Option(min=1, help="Images in a batch.")]
Workers = Annotated[int, typer.Option(min=0, help="Processes that read images; 0 reads them in this one.")]
Device = Annotated[str, typer.Option(help="cpu, cuda, cuda:1, ...; by default the GPU where there is one.")]
Json = Annotated[Path | None, typer.Option("--json", help="Write the figures to this file too.")]
ShortSide = Annotated[
    int | None, typer.Option(min=1, help="Short side of the input in pixels, instead of the detector's own.")
]
LongSide = Annotated[
    int | None, typer.Option(min=1, help="Limit of the long side in pixels, instead of the detector's own.")
]
