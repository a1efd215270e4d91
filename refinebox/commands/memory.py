"""Memory that does not suffice: told from the many errors that say so, with what to lower."""

import errno
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

# how torch's allocators, NVIDIA's libraries and the loss of a data-loading process word it
SIGNS = re.compile(
    r"out of memory|DefaultCPUAllocator|bad_alloc|_ALLOC_FAILED|killed by signal: (Killed|Bus error)", re.IGNORECASE
)
AMOUNT = re.compile(r"tried to allocate [\d.,]+ \w+(\. GPU \d+ has a total capacity of .*? is free)?", re.IGNORECASE)
SMALLER = "lower --short-side and --long-side"
ADVICE = {
    "train": "raise --accumulate, which --resume allows, or lower --batch-size or --short-side and --long-side in "
    "another --output",
    "eval": f"lower --batch-size, or {SMALLER}",
    "oracle-analysis": f"lower --batch-size, or {SMALLER}",
    "predict": SMALLER,
    "refine": f"lower --batch-size, or {SMALLER}",
}
ELSEWHERE = "end other programs, or use a machine with more"


@contextmanager
def advice(context: Any) -> Iterator[None]:
    """Whatever means that memory does not suffice leaves as a MemoryError that says what the command can lower.

    Args:
        context: click's, which knows the command once it runs.
    """
    try:
        yield
    except Exception as error:
        short = shortage(error)
        if short is None:
            raise
        found = AMOUNT.search(str(short))
        amount = f" ({found[0][0].lower()}{found[0][1:]})" if found else ""
        workers = "lower --workers, or " if "DataLoader worker" in str(short) else ""
        what = ADVICE.get(context.invoked_subcommand, ELSEWHERE)
        raise MemoryError(f"out of memory{amount}: {workers}{what}") from error


def shortage(error: BaseException | None) -> BaseException | None:
    """The error itself, or the one among its causes, that means that memory does not suffice, on whatever device."""
    while error is not None:
        worded = isinstance(error, RuntimeError) and SIGNS.search(str(error))
        if worded or isinstance(error, MemoryError) or getattr(error, "errno", None) == errno.ENOMEM:
            return error
        error = error.__cause__
    return None
