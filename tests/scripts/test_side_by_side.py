"""Contenders take turns."""

import time
from types import ModuleType

import pytest


def test_contenders_run_in_turn_and_the_first_round_is_left_out(
    script: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    seconds = iter([100.0, 100.0, 1.0, 5.0, 2.0, 7.0, 9.0, 6.0])  # of each call
    now = 0.0

    def run(name: str) -> None:
        nonlocal now
        calls.append(name)
        now += next(seconds)

    monkeypatch.setattr(time, "perf_counter", lambda: now)
    assert script.side_by_side([lambda: run("a"), lambda: run("b")], repeats=3) == [2.0, 6.0]
    assert "".join(calls) == "abababab"


def test_work_and_waiting_are_told_apart(script: ModuleType) -> None:
    (seconds,) = script.timed([lambda: time.sleep(0.05)], repeats=1)
    assert seconds.wall >= 0.05
    assert seconds.cpu < 0.04
