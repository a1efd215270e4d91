"""Trainings in processes of their own, which begin with torch in memory and end when and where a test says."""

import multiprocessing
import os
import resource
import signal
from collections.abc import Callable, Mapping, Sequence
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any, BinaryIO

import torch

from refinebox.commands import app as cli

PATIENCE = 60.0  # seconds until a process counts as hung
FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(
    [
        "pytest",
        "refinebox.commands.app",
        "refinebox.training.train",
        "refinebox.adapters.dab_detr",
        "PIL.JpegImagePlugin",
    ]
)


def sit(words: Sequence[object], said: Path, **limits: int) -> int:
    """The exit code of a command, -9 if it was killed; what it says is then in the file ``said``.

    Args:
        words: of the command line.
        said: takes standard output and standard error.
        limits: those of :func:`begin`.
    """
    return ended(begin(words, said, **limits))


def begin(
    words: Sequence[object], said: Path, environment: Mapping[str, str] | None = None, **limits: int
) -> ForkServerProcess:
    """The process of :func:`sit`, at work.

    Args:
        words, said: as there.
        environment: variables that it sees besides.
        limits: ``point``, before which the process kills itself, counted from 0, if it comes there; ``room``, bytes
            that no file may grow beyond; ``memory``, bytes that the process may take beside those it begins with.
    """
    process = FORKS.Process(target=_work, args=([str(word) for word in words], said, environment), kwargs=limits)
    process.start()
    return process


def ended(process: ForkServerProcess, seconds: float = PATIENCE, number: int = signal.SIGKILL) -> int:
    """The exit code of a process, which gets the signal ``number`` if it still works after ``seconds``."""
    process.join(seconds)
    if process.exitcode is None and process.pid is not None:
        os.kill(process.pid, number)
    process.join(PATIENCE)
    assert process.exitcode is not None, "hung"
    return process.exitcode


def _work(
    words: list[str],
    said: Path,
    environment: Mapping[str, str] | None,
    point: int | None = None,
    room: int | None = None,
    memory: int | None = None,
) -> None:
    torch.set_num_threads(1)
    os.environ.pop("COLUMNS", None)  # readline, which pytest imports, makes up a terminal
    os.environ.update(environment or {})
    with said.open("wb") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    if room is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (room, room))
    if memory is not None:
        taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (taken + memory, taken + memory))
    if point is not None:
        _kill_before(point)
    cli.app(words)


def _kill_before(point: int) -> None:
    """Kills this process before the ``point``-th change on the disk: a file is opened, half written, or put in place.

    What comes between two such points changes nothing that outlives the process.
    """
    passed = 0

    def reached() -> None:
        nonlocal passed
        if passed == point:
            os.kill(os.getpid(), signal.SIGKILL)
        passed += 1

    def opened(path: Path, mode: str = "r", *arguments: Any, **options: Any) -> Any:
        if mode.startswith("r"):
            return really_open(path, mode, *arguments, **options)
        reached()
        return Torn(really_open(path, mode, *arguments, **options), reached)

    def replaced(*arguments: Any) -> None:
        reached()
        really_replace(*arguments)

    really_open, really_replace = Path.open, os.replace
    setattr(Path, "open", opened)  # noqa: B010  # mypy lets nobody assign a method
    setattr(os, "replace", replaced)  # noqa: B010


class Torn:
    """An open file that passes a point with half of everything written."""

    def __init__(self, file: BinaryIO, reached: Callable[[], None]) -> None:
        self.file, self.reached = file, reached

    def __enter__(self) -> "Torn":
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.file, name)

    def write(self, data: bytes) -> None:
        self.file.write(data[: len(data) // 2])
        self.file.flush()
        self.reached()
        self.file.write(data[len(data) // 2 :])
