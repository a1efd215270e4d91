"""Streams that nobody reads, or that cannot show a letter; tables on terminals that are too narrow."""

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console
from rich.table import Table

from refinebox.commands.console import Patient, fitting, patient_streams

ROOT = Path(__file__).resolve().parents[2]


class Failing(io.StringIO):
    """A stream whose reader has left."""

    def write(self, _: str) -> int:
        raise BrokenPipeError(32, "Broken pipe")

    def flush(self) -> None:
        raise OSError(28, "No space left on device")


def test_a_stream_that_fails_stops_nothing() -> None:
    stream = Patient(Failing())
    assert stream.write("text") == 4
    stream.flush()
    assert print("more", file=stream) is None  # type: ignore[call-overload, func-returns-value]


def test_a_closed_stream_stops_nothing() -> None:
    closed = io.StringIO()
    closed.close()
    Patient(closed).write("text")
    Patient(closed).flush()


@pytest.mark.parametrize(
    ("encoding", "expected"), [("cp1252", b"AP 1 ? 2 ?"), ("ascii", b"AP 1 ? 2 ?"), ("utf-8", None)]
)
def test_what_a_stream_cannot_show_is_replaced(encoding: str, expected: bytes | None) -> None:
    raw = io.BytesIO()
    stream = Patient(io.TextIOWrapper(raw, encoding=encoding))
    stream.write("AP 1 → 2 ≥")
    stream.flush()
    assert raw.getvalue() == (expected or "AP 1 → 2 ≥".encode())


def test_streams_come_back() -> None:
    old = sys.stdout, sys.stderr
    with patient_streams():
        assert isinstance(sys.stdout, Patient)
        assert sys.stdout.isatty() == old[0].isatty()
    assert (sys.stdout, sys.stderr) == old


def run(command: str, folder: Path, **environment: str) -> "subprocess.CompletedProcess[str]":
    variables = {**os.environ, "PYTHONPATH": str(ROOT), "REFINEBOX": f"{sys.executable} -m refinebox", **environment}
    return subprocess.run(
        ["bash", "-c", command], cwd=folder, env=variables, capture_output=True, text=True, check=False
    )


def test_a_closed_pipe_is_no_error(tmp_path: Path) -> None:
    done = run("$REFINEBOX detectors | head -1; exit ${PIPESTATUS[0]}", tmp_path)
    assert (done.returncode, done.stderr) == (0, "")


def test_streams_that_are_closed_from_the_start_are_no_error(tmp_path: Path) -> None:
    assert run("$REFINEBOX detectors >&- 2>&-", tmp_path).returncode == 0


def test_a_full_disk_is_no_error(tmp_path: Path) -> None:
    done = run("$REFINEBOX detectors >/dev/full", tmp_path)
    assert (done.returncode, done.stderr) == (0, "")


def table() -> Table:
    found = Table(title="AP")
    found.add_column("", no_wrap=True)
    for name in ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR"):
        found.add_column(name, justify="right")
    for name in ("as is", "perfect box"):
        found.add_row(name, *(f"{value}.3 (+1{value}.8)" for value in range(41, 48)))
    return found


@pytest.mark.parametrize("width", [40, 60, 80, 100, 140])
def test_no_number_is_cut(width: int) -> None:
    console = Console(width=width, file=io.StringIO(), force_terminal=True, color_system=None)
    for part in fitting(table(), console):
        console.print(part)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert "…" not in text
    assert text.count("perfect box") == len(fitting(table(), console))
    for value in range(41, 48):
        assert text.count(f"{value}.3 (+1{value}.8)") == 2
    assert text.count("AP50") == 1
    assert max(map(len, text.splitlines())) <= width


def test_a_table_that_fits_stays_whole() -> None:
    assert len(fitting(table(), Console(width=140, file=io.StringIO()))) == 1
