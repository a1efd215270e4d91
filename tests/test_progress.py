import time
from collections.abc import Iterator

import pytest

from refinebox import progress


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time, in seconds, which passes only when a test says so."""
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return now


@pytest.fixture(autouse=True)
def _no_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)


def test_all_items_come_in_order() -> None:
    assert list(progress.track(iter("abc"), "letters", 3)) == ["a", "b", "c"]


def test_items_come_one_at_a_time() -> None:
    source = iter("abc")
    assert next(iter(progress.track(source, "letters", 3))) == "a"
    assert list(source) == ["b", "c"]


def test_short_work_is_silent(capsys: pytest.CaptureFixture[str]) -> None:
    assert list(progress.track(range(3), "count", 3)) == [0, 1, 2]
    assert capsys.readouterr() == ("", "")


def test_long_work_prints_a_plain_line_now_and_then(clock: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    for item in progress.track(range(6), "count", 6):
        assert item in range(6)
        clock[0] += 10
    assert capsys.readouterr() == ("", "count: 2/6, 20 s\ncount: 4/6, 40 s\n")


def test_no_line_follows_the_last_item(
    clock: list[float], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(progress, "QUIET_SECONDS", 0)
    for _ in progress.track(range(3), "count", 3):
        clock[0] += 1
    assert capsys.readouterr().err == "count: 1/3, 1 s\ncount: 2/3, 2 s\n"


def test_a_terminal_shows_a_bar_and_all_items_come(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    assert list(progress.track(range(3), "count", 3)) == [0, 1, 2]
    out, err = capsys.readouterr()
    assert out == ""
    assert "count" in err
    assert "3/3" in err


def test_an_error_in_the_work_passes_through() -> None:
    def broken() -> Iterator[int]:
        yield 1
        raise RuntimeError("out of data")

    items = progress.track(broken(), "count", 2)
    assert next(items) == 1
    with pytest.raises(RuntimeError, match="out of data"):
        next(items)
