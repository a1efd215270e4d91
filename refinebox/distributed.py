"""One program for one process or many: started by torchrun, each process does its share and all end with the same.

A single process needs none of it: every function here then returns what it is given.
"""

import atexit
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import TypeVar

import torch
from torch import Tensor, distributed

T = TypeVar("T")
M = TypeVar("M", bound=torch.nn.Module)

PATIENCE = timedelta(minutes=30)  # evaluation of a large data set may keep one process busy while others wait


def start(name: str) -> torch.device:
    """Joins the processes that torchrun started, if it did; the device of this one.

    Args:
        name: as torch knows it, or ``auto`` for the GPU where there is one.

    Raises:
        ValueError: torch knows no such device.
        ConnectionError: the other processes cannot be reached.
    """
    device = device_of(name)
    if "LOCAL_RANK" not in os.environ or distributed.is_initialized():
        return device
    if device.type == "cuda":
        torch.cuda.set_device(device)
    try:
        distributed.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=PATIENCE)
    except (RuntimeError, ValueError) as error:
        raise ConnectionError(f"the processes do not find each other ({error}); start them with torchrun") from error
    atexit.register(distributed.destroy_process_group)
    if rank() != 0:
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115  # the first one speaks for all
    return device


def device_of(name: str) -> torch.device:
    """The device of this process: ``auto`` is the GPU where there is one, ``cuda`` its own where torchrun started it.

    Raises:
        ValueError: torch knows no such device.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise no_device(name, error) from error
    if device.type == "meta":
        raise no_device(name, RuntimeError("it holds shapes and no numbers"))
    started = device.type == "cuda" and "LOCAL_RANK" in os.environ
    return torch.device("cuda", int(os.environ["LOCAL_RANK"])) if started else device


def placed(module: M, name: str) -> M:
    """The module on the device that :func:`device_of` says.

    Raises:
        ValueError: the device is not there.
    """
    try:
        return module.to(device_of(name))
    except (RuntimeError, AssertionError) as error:  # torch raises the second for what it was not built with
        raise no_device(name, error) from error


def no_device(name: str, error: Exception) -> ValueError:
    """What to raise for a device that is not there."""
    return ValueError(f"no device {name!r} here ({str(error).splitlines()[0]}); pass --device cpu")


def rank() -> int:
    """The number of this process; 0 writes files and prints."""
    return distributed.get_rank() if distributed.is_initialized() else 0


def processes() -> int:
    """How many processes there are."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


@contextmanager
def first_alone() -> Iterator[None]:
    """The first process goes through the block before all others."""
    if rank() != 0:
        _wait()
    yield
    if rank() == 0:
        _wait()


def _wait() -> None:
    if distributed.is_initialized():
        with _others_may_end():
            distributed.barrier()


def total(tensor: Tensor) -> Tensor:
    """The sum of every process's ``tensor``, in place.

    Raises:
        ConnectionError: another process has ended.
    """
    if distributed.is_initialized():
        with _others_may_end():
            distributed.all_reduce(tensor)
    return tensor


def totals(numbers: Sequence[int], device: torch.device) -> list[int]:
    """The sums of every process's ``numbers``; alone they never leave for ``device``, for which work would wait."""
    if not distributed.is_initialized():
        return list(numbers)
    return [int(number) for number in total(torch.tensor(numbers, device=device)).tolist()]


def total_gradients(parameters: Sequence[torch.nn.Parameter]) -> None:
    """Every parameter's gradient becomes the sum of all processes'; in one transfer, as the refiner is small."""
    if distributed.is_initialized():
        flat = torch.cat([torch.zeros_like(p).view(-1) if p.grad is None else p.grad.view(-1) for p in parameters])
        total(flat)
        for parameter, gradient in zip(parameters, torch.split(flat, [p.numel() for p in parameters]), strict=True):
            parameter.grad = gradient.view_as(parameter)


def gathered(items: list[T]) -> list[T]:
    """The items of all processes, in the order in which ``items[rank::processes]`` shares them out.

    Raises:
        ConnectionError: another process has ended.
    """
    if not distributed.is_initialized():
        return items
    parts: list[list[T]] = [[] for _ in range(processes())]
    with _others_may_end():
        distributed.all_gather_object(parts, items)
    return [part[row] for row in range(max(map(len, parts))) for part in parts if row < len(part)]


@contextmanager
def _others_may_end() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        raise ConnectionError(
            "another process of this run has ended, see its own message; continue with --resume"
        ) from error
