"""Contenders timed in turn."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from statistics import median
from typing import NamedTuple

import torch


class Seconds(NamedTuple):
    """Medians: what a clock on the wall shows, and what the processor worked, which others cannot lengthen."""

    wall: float
    cpu: float


KINDS = {"s": "wall", "CPU s": "cpu"}  # how they are named in figures


def timed(functions: Sequence[Callable[[], object]], repeats: int) -> list[Seconds]:
    """Of each, run in turn so that what else the machine does hits all alike; a first round is left out.

    The first round makes buffers and finds algorithms, which no later one does.
    """
    times: list[list[Seconds]] = [[] for _ in functions]
    for _ in range(repeats + 1):
        for function, found in zip(functions, times, strict=True):
            wall, cpu = time.perf_counter(), time.process_time()
            function()
            found.append(Seconds(time.perf_counter() - wall, time.process_time() - cpu))
    return [Seconds(*map(median, zip(*found[1:], strict=True))) for found in times]


def side_by_side(functions: Sequence[Callable[[], object]], repeats: int) -> list[float]:
    """The median seconds on the wall of each; see :func:`timed`."""
    return [seconds.wall for seconds in timed(functions, repeats)]


@contextmanager
def one_thread() -> Iterator[None]:
    """Computes on one thread, so that processor seconds hold no waiting for others."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
