"""Arguments and options that several commands share."""

from pathlib import Path
from typing import Annotated, Literal

import typer

# groups of options in a command's help
DATA, DETECTOR, RECIPE, SPEED, OUTPUT = "Data", "Detector", "Recipe", "Speed and memory", "Output"

DetectorName = Annotated[
    str | None,
    typer.Option(
        "--detector",
        help="A name that `refinebox detectors` lists, a file that refinebox wrote, a folder that transformers wrote, "
        "organisation/name or organisation/name:FILE of the Hugging Face hub, or package.module:function that returns "
        "a detector.",
        rich_help_panel=DETECTOR,
    ),
]
Weights = Annotated[
    Path | None,
    typer.Option(
        help="The detector's checkpoint in any published layout, a path or organisation/name:FILE of the Hugging Face "
        "hub, instead of downloading the published one.",
        rich_help_panel=DETECTOR,
    ),
]
Ema = Annotated[
    bool | None,
    typer.Option(
        "--ema/--no-ema",
        help="Of a checkpoint with two sets of weights, take the moving average, the default, or not.",
        rich_help_panel=DETECTOR,
    ),
]
Prompt = Annotated[
    str | None,
    typer.Option(
        help="What a detector that takes text is to look for, 'cat. traffic light.'; by default the data's categories.",
        rich_help_panel=DETECTOR,
    ),
]
Features = Annotated[
    str | None,
    typer.Option(
        "--features",
        help="Instead of --detector, what gives feature maps to the boxes of --results: a detector's name, "
        "torchvision:resnet50, or timm:NAME; --weights are then its own.",
        rich_help_panel=DETECTOR,
    ),
]
Results = Annotated[
    Path | None,
    typer.Option(
        "--results",
        help="COCO results file whose boxes are taken, where the detector finds none itself.",
        rich_help_panel=DATA,
    ),
]
Model = Annotated[str, typer.Argument(help="An upgraded checkpoint, or a detector's name as for --detector.")]
Data = Annotated[
    Path | None,
    typer.Option(
        "--data",
        help="Folder in COCO's layout, annotations/ beside the image folders, or as a labelling tool exports it.",
        rich_help_panel=DATA,
    ),
]
Annotations = Annotated[
    Path | None, typer.Option(help="COCO annotation file, instead of --data.", rich_help_panel=DATA)
]
Images = Annotated[Path | None, typer.Option(help="Folder of its images.", rich_help_panel=DATA)]
Categories = Annotated[
    Literal["check", "id", "name", "order"],
    typer.Option(
        help="Match the data's categories with the detector's by id and name, id, name, or order of the ids.",
        rich_help_panel=DATA,
    ),
]
Boxes = Annotated[
    Literal["xywh", "xyxy", "cxcywh", "xywhn", "xyxyn", "cxcywhn"] | None,
    typer.Option(
        help="What the numbers of boxes in files are where they do not fit as COCO's xywh: corners, centres and sides, "
        "or fractions of the image (n); xywh takes them as they are.",
        rich_help_panel=DATA,
    ),
]
BatchSize = Annotated[int, typer.Option(min=1, help="Images in a batch.", rich_help_panel=SPEED)]
Workers = Annotated[
    int, typer.Option(min=0, help="Processes that read images; 0 reads them in this one.", rich_help_panel=SPEED)
]
Device = Annotated[
    str, typer.Option(help="cpu, cuda, cuda:1, ...; by default the GPU where there is one.", rich_help_panel=SPEED)
]
Json = Annotated[
    Path | None, typer.Option("--json", help="Write the figures to this file too.", rich_help_panel=OUTPUT)
]
Verbose = Annotated[
    bool,
    typer.Option(
        "--verbose", "-v", help="Leave nothing out: all metrics, thresholds, categories, files.", rich_help_panel=OUTPUT
    ),
]
ShortSide = Annotated[
    int | None,
    typer.Option(
        min=1, help="Short side of the input in pixels, instead of the detector's own.", rich_help_panel=DETECTOR
    ),
]
LongSide = Annotated[
    int | None,
    typer.Option(
        min=1, help="Limit of the long side in pixels, instead of the detector's own.", rich_help_panel=DETECTOR
    ),
]
