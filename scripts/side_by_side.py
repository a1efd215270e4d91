"""Contenders timed in turn."""

import time
from collections.abc import Callable, Sequence
from statistics import median


def side_by_side(functions: Sequence[Callable[[], object]], repeats: int) -> list[float]:
    """Median seconds of each, run in turn so that what else the machine does hits all alike; a first round is left out.

    The first round makes buffers and finds algorithms, which no later one does.
    """
    times: list[list[float]] = [[] for _ in functions]
    for _ in range(repeats + 1):
        for function, found in zip(functions, times, strict=True):
            start = time.perf_counter()
            function()
            found.append(time.perf_counter() - start)
    return [median(found[1:]) for found in times]
