"""Progress of long work: a bar on a terminal, a plain line now and then elsewhere."""

import os
import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

T = TypeVar("T")

QUIET_SECONDS = 15.0  # between two plain lines


def track(items: Iterable[T], description: str, total: int) -> Iterator[T]:
    """The same items, with progress shown on standard error; of several processes only the first shows it."""
    if os.environ.get("RANK", "0") != "0":
        return iter(items)
    console = Console(stderr=True)
    return (
        _bar(items, description, total, console) if console.is_terminal else _lines(items, description, total, console)
    )


def tell(line: str, *, warning: bool = False) -> None:
    """Shows what long work has to say at once: on standard output, or on standard error where it is a ``warning``.

    A reader who has left (a closed pipe) or cannot show a character never stops the work.
    """
    stream = sys.stderr if warning else sys.stdout
    try:
        print(line.encode(stream.encoding or "utf-8", "replace").decode(stream.encoding or "utf-8"), file=stream)
        stream.flush()
    except (OSError, ValueError):  # the pipe is closed, or the stream itself
        pass


def _bar(items: Iterable[T], description: str, total: int, console: Console) -> Iterator[T]:
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with Progress(*columns, console=console, transient=True) as progress:
        yield from progress.track(items, total=total, description=description)


def _lines(items: Iterable[T], description: str, total: int, console: Console) -> Iterator[T]:
    start = last = time.monotonic()
    for done, item in enumerate(items, start=1):
        yield item
        now = time.monotonic()
        if now - last >= QUIET_SECONDS and done < total:
            last = now
            console.print(f"{description}: {done}/{total}, {now - start:.0f} s", highlight=False)
