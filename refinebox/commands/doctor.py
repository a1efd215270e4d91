"""``refinebox doctor``: what is wrong with data, results or detector, and what to do about it."""

import textwrap
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args

import typer

from refinebox.commands.options import (
    DATA,
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
    ShortSide,
    Weights,
)

if TYPE_CHECKING:
    from refinebox.data.annotations import CocoData
    from refinebox.data.categories import Matching
    from refinebox.data.frames import Reading
    from refinebox.data.layout import Split
    from refinebox.detection.detector import Detector
    from refinebox.evaluation.checkup import Finding

EXAMPLE = "Example: refinebox doctor --data coco/ --detector detr-r50 --weights mine.pth"
WIDTH = 80
UNBROKEN: Any = {"break_long_words": False, "break_on_hyphens": False}
WORDS = {None: "ok", False: "note", True: "WRONG"}


def doctor(
    data: Data = None,
    annotations: Annotations = None,
    images: Images = None,
    results: Annotated[
        Path | None,
        typer.Option(
            help="COCO results file of the validation images, also for a detector that takes its boxes.",
            rich_help_panel=DATA,
        ),
    ] = None,
    detector: DetectorName = None,
    weights: Weights = None,
    ema: Ema = None,
    prompt: Prompt = None,
    features: Features = None,
    categories: Categories = "check",
    boxes: Boxes = None,
    short_side: ShortSide = None,
    long_side: LongSide = None,
    device: Device = "auto",
) -> None:
    """Say in plain words what is wrong with data, results and detector, and what to do; exit code 1 if anything is."""
    from refinebox.evaluation import checkup

    named = [path for path in (annotations, results) if path is not None and not path.is_file()]
    if named:
        raise FileNotFoundError(f"no file at {named[0]}; check the path")
    name = features if detector is None else detector
    if name is not None and annotations is not None and images is None:
        raise ValueError("a detector needs images to look at; name their folder with --images")
    chart = Chart()
    opened = chart.data(data, annotations, images, boxes)
    truth = opened.get("val", opened.get("train"))
    if results is not None and truth is not None:
        typer.echo(f"results: {results}")
        chart.look(partial(checkup.of_results, results, truth, categories, boxes))
    if name is not None and truth is not None:
        from refinebox.commands.inputs import load
        from refinebox.detection.zoo import is_custom

        typer.echo(f"detector: {name}")
        model = load(detector, weights, device, short_side, long_side, ema=ema, prompt=prompt, features=features)
        if is_custom(name):
            chart.look(partial(checkup.of_contract, model))
        chart.look(partial(found_by, model, truth, results, categories, boxes))
    typer.echo(chart.summary())
    if chart.counts[True]:
        raise typer.Exit(1)


class Chart:
    """What was found so far; every finding is printed when it comes up."""

    def __init__(self) -> None:
        self.counts: Counter[bool | None] = Counter()

    def look(self, step: "Callable[[], list[Finding]]") -> None:
        """Prints what a step finds; what makes it fail is a finding, too."""
        from refinebox.evaluation.checkup import Finding

        try:
            found = step()
        except (OSError, ValueError) as error:
            found = [Finding(str(error), True)]
        for finding in found:
            self.counts[finding.wrong] += 1
            typer.echo(folded(finding))

    def data(
        self, folder: Path | None, annotations: Path | None, images: Path | None, boxes: "Reading | None"
    ) -> "dict[Split, CocoData]":
        """Looks at every split that is there, and at each beside the other.

        Raises:
            FileNotFoundError, ValueError: nothing is named, or nothing is there.
        """
        from refinebox.evaluation import checkup

        with_images = folder is not None or images is not None
        opened: dict[Split, CocoData] = {}
        for split, place in self.places(folder, annotations, images).items():
            typer.echo(f"{split}: {place[0]}")
            self.look(partial(read, opened, split, place, with_images, boxes))
            if split in opened and with_images:
                self.look(partial(checkup.of_images, opened[split]))
        if len(opened) == 2:
            typer.echo("train and val")
            self.look(partial(checkup.of_splits, opened["train"], opened["val"]))
        return opened

    def places(
        self, folder: Path | None, annotations: Path | None, images: Path | None
    ) -> "dict[Split, tuple[Path, Path]]":
        """(annotation file, image folder) of every split that is there; what lacks of the others is a finding."""
        from refinebox.data import layout
        from refinebox.evaluation.checkup import Finding

        if folder is None or annotations is not None or images is not None:
            return {"val": layout.locate("val", folder, annotations, images, images_needed=False)}
        found: dict[Split, tuple[Path, Path]] = {}
        faults: dict[Split, FileNotFoundError] = {}
        for split in get_args(layout.Split):
            try:
                found[split] = layout.find(folder, split)
            except FileNotFoundError as error:
                faults[split] = error
        if not found:
            raise faults["val"]
        for split, fault in faults.items():
            absent = str(fault).startswith(f"no {split} annotations")
            advice = "train with --val-fraction 0.1, or label some" if split == "val" else ""
            finding = Finding(str(fault), not absent, advice if absent else "")
            typer.echo(f"{split}: not there")
            self.look(partial(list, [finding]))
        return found

    def summary(self) -> str:
        """The last line."""
        wrong, notes = self.counts[True], self.counts[False]
        return f"{wrong} wrong, {notes} to note" if wrong or notes else "nothing is wrong"


def read(
    opened: "dict[Split, CocoData]",
    split: "Split",
    place: tuple[Path, Path],
    with_images: bool,
    boxes: "Reading | None",
) -> "list[Finding]":
    """Puts the data of a split among those that are open; what reading it finds."""
    from refinebox.data import annotations
    from refinebox.evaluation import checkup

    opened[split] = annotations.read(*place, images_needed=with_images, strict=False, boxes=boxes)
    return checkup.of_data(opened[split])


def found_by(
    model: "Detector", truth: "CocoData", results: Path | None, categories: "Matching", boxes: "Reading | None"
) -> "list[Finding]":
    """What a detector makes of the data; where it takes boxes, they are those of the results file."""
    from refinebox.evaluation import checkup
    from refinebox.evaluation.results import read_results

    if model.takes_boxes and results is not None:
        truth = replace(truth, given=read_results(results, truth, boxes=boxes))
    return checkup.of_detector(model, truth, categories)


def folded(finding: "Finding") -> str:
    """Lines of 80 characters, in which a path is never broken."""
    indent = " " * 8
    lines = textwrap.wrap(
        finding.what, WIDTH, initial_indent=f"  {WORDS[finding.wrong]:<5} ", subsequent_indent=indent, **UNBROKEN
    )
    if finding.advice:
        lines += textwrap.wrap(
            f"→ {finding.advice}", WIDTH, initial_indent=indent, subsequent_indent=indent, **UNBROKEN
        )
    return "\n".join(lines)
