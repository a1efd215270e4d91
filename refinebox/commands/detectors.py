"""``refinebox detectors``: the detectors that have a name, and how all others are named."""

from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.table import Table

NAME = Annotated[
    str | None,
    typer.Argument(
        help="Show this one whole, a name or a folder: source, SHA-256, licence and size; or list a library's names."
    ),
]


def detectors(name: NAME = None) -> None:
    """List the detectors that have a name: AP as published, with a refiner, and where the weights are."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    from refinebox.commands.console import show
    from refinebox.detection.published import DETECTORS, place
    from refinebox.detection.sources import LIBRARIES, known
    from refinebox.files.download import home

    if name in LIBRARIES:
        typer.echo("\n".join(f"{name}:{model}" for model in known(name)))
        return
    if name is not None:
        for what, value in described(name).items():
            typer.echo(f"{what + ':':<12} {value}")
        return
    table = Table(
        box=SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        caption_justify="left",
        caption=f"Downloads are kept in {home()}; REFINEBOX_HOME names another folder. "
        "refinebox detectors NAME shows one whole.",
    )
    table.add_column("name", no_wrap=True)
    table.add_column("AP", justify="right")
    table.add_column("refined", justify="right")
    table.add_column("backbone")
    table.add_column("weights", no_wrap=True)
    family = None
    for key, entry in DETECTORS.items():
        if family not in (None, entry.family):
            table.add_section()
        family = entry.family
        table.add_row(key, points(entry.ap), points(entry.refined_ap), entry.backbone, place(key, entry))
    show(table, width=80)
    show(other_sources(), width=80)


def other_sources() -> "Table":
    """How detectors are named that have no row."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    from refinebox.detection.sources import SOURCES

    table = Table(
        box=SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        caption_justify="left",
        caption="refinebox detectors torchvision lists a library's names; docs/detectors.md says more.",
    )
    table.add_column("others are named", no_wrap=True)
    table.add_column("come from", no_wrap=True)
    table.add_column("extra", no_wrap=True)
    for named, (source, extra) in SOURCES.items():
        table.add_row(named, source, extra or "–")
    return table


def described(name: str) -> dict[str, str]:
    """Everything that the table knows about a detector, in words.

    Raises:
        ValueError: the name is unknown; the message names the nearest.
    """
    from refinebox.detection.published import DETECTORS, place
    from refinebox.detection.sources import LIBRARIES, about, about_folder, is_hub_id

    source, _, model = name.partition(":")
    if source in LIBRARIES:
        return {"name": name, **about(source, model)}
    entry = DETECTORS.get(name)
    if entry is None and Path(name).is_dir():
        return {"name": name, **about_folder(Path(name))}
    if entry is None and is_hub_id(name):
        raise ValueError(f"{name} is on the Hugging Face hub; download it and name its folder to see what it is")
    if entry is None:
        near = get_close_matches(name, DETECTORS, n=3, cutoff=0.4) or list(DETECTORS)[:3]
        raise ValueError(f"unknown detector {name!r}; near it are {', '.join(near)}; refinebox detectors lists all")
    return {
        "name": name,
        "family": entry.family,
        "backbone": entry.backbone,
        "COCO AP": points(entry.ap),
        "refined AP": f"{points(entry.refined_ap)} ({entry.refiner or 'no refiner is published'})",
        "format": entry.layout,
        "licence": entry.licence,
        "weights": place(name, entry),
        "source": entry.source,
        "SHA-256": entry.sha256 or "not published",
        "MB": "–" if entry.megabytes is None else str(entry.megabytes),
    }


def points(value: float | None) -> str:
    """One decimal, or a dash where nothing is published."""
    return "–" if value is None else f"{value:.1f}"
