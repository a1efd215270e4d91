"""The terminal: tables that are not cut, sentences that end lines between words, streams that never stop a command."""

import os
import sys
import textwrap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from copy import copy
from typing import Any, TextIO, cast

from rich.console import Console
from rich.measure import Measurement
from rich.table import Table


def show(table: Table, width: int = 120, *, whole: bool = True) -> list[str]:
    """Prints a table as wide as the terminal is; elsewhere ``width`` characters, for a table that is cut is no use.

    Where the terminal, or what COLUMNS says of it, is too narrow for a table of numbers, its columns stand below one
    another; unless ``whole``, those that do not fit are left out. Their heads are returned.
    """
    console = Console()
    if not console.is_terminal and columns_named() is None:
        Console(width=width).print(table)
        return []
    parts = fitting(table, console)
    shown = parts if whole else parts[:1]
    for part in shown:
        console.print(part)
    return [str(column.header) for part in parts[len(shown) :] for column in part.columns[1:]]


def offered(what: Sequence[str]) -> str:
    """The line that says what a command shows with -v."""
    return "-v shows " + " and ".join(filter(None, (", ".join(what[:-1]), what[-1])))


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


PASTED = "next: "  # begins a line that is to be copied whole


def folded(text: str, width: int | None) -> str:
    """The text with its long lines ended between words; a drawing, a file name and a command stay as they are."""
    if width is None or len(text) <= width or "\x1b" in text or "\r" in text:
        return text
    lines = (
        line if len(line) <= width or line.startswith(PASTED) else "\n".join(_wrapped(line, width))
        for line in text.split("\n")
    )
    return "\n".join(lines)


def _wrapped(line: str, width: int) -> list[str]:
    return textwrap.wrap(line, width, break_long_words=False, break_on_hyphens=False)


def columns_named() -> int | None:
    """What COLUMNS says, where it says a number."""
    named = os.environ.get("COLUMNS", "")
    return int(named) if named.isdigit() and int(named) else None


def width_of(stream: TextIO) -> int | None:
    """Columns of the terminal behind a stream, or what COLUMNS says; None where neither is known."""
    with suppress(AttributeError, OSError, ValueError):
        return columns_named() or os.get_terminal_size(stream.fileno()).columns or None
    return None


class Patient:
    """A stream that takes everything: what nobody reads any more is dropped, what it cannot show is replaced.

    On a terminal long lines end between words.
    """

    def __init__(self, stream: TextIO) -> None:
        self.stream, self.width = stream, width_of(stream)
        with suppress(AttributeError, ValueError, OSError):
            cast(Any, stream).reconfigure(errors="replace")

    def write(self, text: str) -> int:
        """Writes what can be written."""
        try:
            self.stream.write(folded(text, self.width))
            return len(text)
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
    with open(os.devnull, "w", encoding="utf-8") as nowhere:  # for streams that were closed before Python began
        sys.stdout, sys.stderr = (cast(TextIO, Patient(stream or nowhere)) for stream in old)
        try:
            yield
        finally:
            sys.stdout.flush()
            sys.stdout, sys.stderr = old
