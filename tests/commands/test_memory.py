"""Every way of running out of memory becomes one line that says what to lower."""

import errno
import re
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from refinebox.commands import memory

CUDA = (
    "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 139.81 GiB of which 1.50 GiB is "
    "free. Including non-PyTorch memory, this process has 138.00 GiB memory in use. See documentation"
)
SHORT = {
    "CUDA": (
        torch.OutOfMemoryError(CUDA),
        r" \(tried to allocate 2\.00 GiB\. GPU 0 has a total capacity of 139\.81 GiB of which 1\.50 GiB is free\)",
    ),
    "cuBLAS": (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), ""),
    "C++": (RuntimeError("std::bad_alloc"), ""),
    "Python": (MemoryError(), ""),
    "fork": (OSError(errno.ENOMEM, "Cannot allocate memory"), ""),
}
WORKERS = {
    "killed": "DataLoader worker (pid 77) is killed by signal: Killed. ",
    "shared memory": "DataLoader worker (pid 77) is killed by signal: Bus error. It is possible that dataloader's "
    "workers are out of shared memory. Please try to raise your shared memory limit.",
    "in a worker": "Caught RuntimeError in DataLoader worker process 0.\nOriginal Traceback (most recent call last):\n"
    "RuntimeError: DefaultCPUAllocator: can't allocate memory",
}


def told(error: Exception, command: str | None) -> str:
    with pytest.raises(MemoryError) as caught, memory.advice(SimpleNamespace(invoked_subcommand=command)):
        raise error
    return str(caught.value)


@pytest.mark.parametrize("name", SHORT)
def test_every_wording_is_known(name: str) -> None:
    error, amount = SHORT[name]
    assert re.fullmatch(rf"out of memory{amount}: lower --short-side and --long-side", told(error, "predict"))


@pytest.mark.parametrize("name", WORKERS)
def test_processes_that_load_data_are_named(name: str) -> None:
    told_of_workers = told(RuntimeError(WORKERS[name]), "eval")
    assert told_of_workers.startswith("out of memory: lower --workers, or lower --batch-size, or lower --short-side")


def test_real_allocations_are_known() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(10**14)
    assert told(caught.value, "eval").startswith("out of memory (tried to allocate 400000000000000 bytes): lower --b")
    with pytest.raises(MemoryError) as of_numpy:
        np.empty(10**15)
    assert told(of_numpy.value, "eval").startswith("out of memory: lower --batch-size")


def test_causes_count() -> None:
    outer = ConnectionError("another process of this run has ended")
    outer.__cause__ = torch.OutOfMemoryError(CUDA)
    assert told(outer, "train").startswith("out of memory (tried to allocate 2.00 GiB. GPU 0")


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        (
            "train",
            "raise --accumulate, which --resume allows, or lower --batch-size or --short-side and --long-side in",
        ),
        ("oracle-analysis", "lower --batch-size"),
        ("apply", "end other programs, or use a machine with more"),
        (None, "end other programs, or use a machine with more"),
    ],
)
def test_the_advice_is_the_commands(command: str | None, expected: str) -> None:
    assert told(MemoryError(), command).startswith(f"out of memory: {expected}")


@pytest.mark.parametrize(
    "error",
    [
        ValueError("out of memory"),
        RuntimeError("shapes differ"),
        OSError(errno.ENOSPC, "No space left on device"),
        RuntimeError("DataLoader worker (pid 77) is killed by signal: Terminated. "),
    ],
)
def test_other_errors_pass(error: Exception) -> None:
    with pytest.raises(type(error)) as caught, memory.advice(SimpleNamespace(invoked_subcommand="train")):
        raise error
    assert caught.value is error
