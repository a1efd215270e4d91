"""The terminal: tables that are not cut, and streams that never stop a command."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from copy import copy
from typing import Any, TextIO, cast

from rich.console import Console
from rich.measure import Measurement
from rich.table import Table


def show(table: Table, width: int = 120) -> None:
    """Prints a table as wide as the terminal is; elsewhere ``width`` characters, for a table that is cut is no use.

    Where the terminal is too narrow for a table of numbers, its columns stand below one another.
    """
    console = Console()
    if not console.is_terminal:
        Console(width=width).print(table)
        return
    for part in fitting(table, console):
        console.print(part)


def fitting(table: Table, console: Console) -> list[Table]:
    """The table, or tables with its first column and as many of the others as the terminal is wide."""
    for column in table.columns:
        if column.no_wrap or column.justify == "right":  # names, and numbers
            column.min_width = max(console.measure(cell).maximum for cell in (column.header, *column.cells))
    whole = range(len(table.columns))
    if fits(table, console) or len(whole) < 3:
        return [table]
    parts: list[list[int]] = [[0]]
    for index in whole[1:]:
        if len(parts[-1]) > 1 and not fits(part_of(table, [*parts[-1], index]), console):
            parts.append([0])
        parts[-1].append(index)
    return [part_of(table, columns, title=not number) for number, columns in enumerate(parts)]


def fits(table: Table, console: Console) -> bool:
    """Whether no word of it need be cut."""
    return Measurement.get(console, console.options.update(max_width=10_000), table).minimum <= console.width


def part_of(table: Table, columns: list[int], *, title: bool = True) -> Table:
    """Some columns of a table."""
    part = copy(table)
    part.title = table.title if title else None
    part.columns = [copy(table.columns[index]) for index in columns]
    for index, column in enumerate(part.columns):
        column._index = index
    return part


class Patient:
    """A stream that takes everything: what nobody reads any more is dropped, what it cannot show is replaced."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream
        with suppress(AttributeError, ValueError, OSError):
            cast(Any, stream).reconfigure(errors="replace")

    def write(self, text: str) -> int:
        """Writes what can be written."""
        try:
            return self.stream.write(text)
        except (OSError, ValueError):  # a pipe whose reader has left, a full disk, a closed stream
            self._give_up()
            return len(text)

    def flush(self) -> None:
        """Flushes what can be flushed."""
        try:
            self.stream.flush()
        except (OSError, ValueError):
            self._give_up()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)

    def _give_up(self) -> None:
        """Sends the rest nowhere, so that the interpreter does not complain of it at its end."""
        with suppress(AttributeError, OSError, ValueError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self.stream.fileno())
            os.close(nowhere)


@contextmanager
def patient_streams() -> Iterator[None]:
    """Standard output and error never stop what is done inside."""
    old = sys.stdout, sys.stderr
    with open(os.devnull, "w") as nowhere:  # for streams that were closed before Python began
        sys.stdout, sys.stderr = (cast(TextIO, Patient(stream or nowhere)) for stream in old)
        try:
            yield
        finally:
            sys.stdout.flush()
            sys.stdout, sys.stderr = old
