"""Signals are noted, granted later, and what handled them before handles them again afterwards."""

import signal
import threading

import pytest

from refinebox.training.interruption import Interrupted, Interruption


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_is_noted(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with Interruption() as interruption:
        assert interruption.signal == 0
        signal.raise_signal(number)
        assert interruption.signal == number
    assert signal.getsignal(number) is before


def test_the_first_signal_counts() -> None:
    with Interruption() as interruption:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGTERM)
        assert interruption.signal == signal.SIGINT


def test_who_cannot_wait_interrupts_twice() -> None:
    with Interruption():
        signal.raise_signal(signal.SIGTERM)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


def test_other_threads_leave_signals_alone() -> None:
    entered: list[int] = []

    def enter() -> None:
        with Interruption() as interruption:
            entered.append(interruption.signal)

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert entered == [0]


def test_the_exit_code_is_the_shells() -> None:
    assert Interrupted("stopped", signal.SIGTERM).exit_code == 143
