"""``refinebox info``: what is in a file."""

from pathlib import Path
from typing import Annotated

import typer

from refinebox.commands.console import offered
from refinebox.commands.options import Verbose

EXAMPLE = "Example: refinebox info runs/first/best.safetensors"


def info(
    file: Annotated[Path, typer.Argument(help="A refiner, or a detector that refinebox wrote.")],
    verbose: Verbose = False,
) -> None:
    """Say what a refiner or an upgraded checkpoint is made of, and what it gained."""
    from refinebox.files import hub
    from refinebox.refinement.description import described, details

    path = hub.local(file)
    lines, more = described(path), details(path)
    if verbose:
        lines |= more
    width = max(map(len, lines)) + 1
    for what, value in lines.items():
        typer.echo(f"{what + ':':<{width}} {value}")
    if more and not verbose:
        typer.echo(offered(list(more)))
