"""Every command on a terminal of 80 columns, on one without colours, in other encodings, and completed by shells."""

import io
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from invocation import done, run
from typer.main import get_command

from refinebox.commands.app import app
from refinebox.commands.console import Patient, folded
from refinebox.data.annotations import CocoData
from refinebox.detection.detector import Detector
from refinebox.detection.zoo import describe
from refinebox.files import checkpoint
from refinebox.refinement.refiner import Refiner
from refinebox.training.run import write_refiner

ROOT = Path(__file__).resolve().parents[2]
COMMANDS: dict[str, Any] = get_command(app).commands  # type: ignore[attr-defined]
WIDTH = 80
START = "import sys; from refinebox.commands.app import app; app(sys.argv[1:], prog_name='refinebox')"


@pytest.fixture
def _eighty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A terminal of 80 columns, in an empty folder, so that names of files are short."""
    monkeypatch.setenv("COLUMNS", str(WIDTH))
    monkeypatch.chdir(tmp_path)


def too_wide(text: str) -> list[str]:
    """Lines that do not fit, but for commands that are to be copied whole, and addresses."""
    lines = [line for line in text.splitlines() if len(line) > WIDTH and not line.startswith("next: ")]
    return [line for line in lines if " " in line.strip()]


@pytest.mark.usefixtures("_eighty")
@pytest.mark.parametrize("command", [[], *([name] for name in COMMANDS)], ids=" ".join)
def test_help_fits(command: Sequence[str]) -> None:
    shown = done(*command, "--help")
    assert too_wide(shown) == []
    assert "…" not in shown  # nothing is cut
    assert shown.count("Usage: ") == 1
    for name in COMMANDS if not command else options(COMMANDS[command[0]]):
        assert name in shown


def options(command: Any) -> list[str]:
    """The long names, which help must not cut."""
    return [name for parameter in command.params for name in parameter.opts if name.startswith("--")]


@pytest.fixture
def _files(_eighty: None, detector: Detector, validation: CocoData) -> None:
    """Everything that commands take, in the folder where they run."""
    checkpoint.write(Path("d.safetensors"), detector.tensors(), {"kind": "detector", "detector": describe(detector)})
    torch.manual_seed(0)
    refiner = Refiner(detector.channels, detector.strides)
    write_refiner(Path("r.safetensors"), refiner, detector, {}, {"before": None, "after": None})
    Path("data").symlink_to(validation.folder.parent, target_is_directory=True)
    rows = [
        {"image_id": a["image_id"], "category_id": a["category_id"], "bbox": a["bbox"], "score": 1 / (2 + place)}
        for place, a in enumerate(validation.annotations)
    ]
    Path("results.json").write_text(json.dumps(rows))


@pytest.mark.usefixtures("_files")
@pytest.mark.skipif(sys.platform == "win32", reason="links to folders need rights on Windows")
def test_what_commands_print_fits() -> None:
    done("apply", "--detector", "d.safetensors", "--refiner", "r.safetensors", "--output", "u.safetensors")
    shown = {
        words: done(*words.split())
        for words in (
            "detectors",
            "detectors dab-detr-r50",
            "env",
            "info u.safetensors",
            "doctor --results results.json --data data",
            "oracle-analysis --results results.json --refined results.json --data data --html report.html",
            "train --detector d.safetensors --data data --output run --epochs 1 --held-out 0 --augmentation none",
            "train --detector d.safetensors --data data --output dry --dry-run",
            "apply --detector d.safetensors --refiner r.safetensors --output better.safetensors",
            "eval u.safetensors --data data --json figures.json",
            "predict u.safetensors data/val --output out --compare",
        )
    }
    # whose random weights find nothing, so that it does not end well
    shown["doctor"] = run(*["doctor", "--detector", "d.safetensors", "--data", "data"]).stdout
    for words, text in shown.items():
        assert too_wide(text) == [], words
        assert "…" not in text, words  # nothing is cut
    ends = {words.split()[0]: text.splitlines()[-1] for words, text in shown.items()}
    assert ends["oracle-analysis"] == "wrote report.html"
    assert ends["apply"] == "next: refinebox eval better.safetensors --data DATA"
    assert ends["eval"] == f"wrote {Path('results/before.json')}, {Path('results/after.json')}"
    assert ends["predict"].startswith("4 images: ")


UPGRADE = ("apply", "--detector", "d.safetensors", "--refiner", "r.safetensors", "--output", "u.safetensors")


@pytest.mark.usefixtures("_files")
@pytest.mark.skipif(sys.platform == "win32", reason="links to folders need rights on Windows")
@pytest.mark.parametrize(
    ("words", "offer", "more"),
    [
        (
            "eval u.safetensors --data data",
            "APl, AR, AP at every IoU threshold and of every category",
            ["APl", "AR", "0.50", "0.95", "ellipse", "cross"],
        ),
        (
            "oracle-analysis --results results.json --data data",
            "APm, APl, AR and AP at every IoU threshold",
            ["APm", "AR", "0.95"],
        ),
        ("info u.safetensors", "categories, detector file and refiner file", ["6 cross", "r.safetensors (sha256 "]),
    ],
    ids=["eval", "oracle-analysis", "info"],
)
def test_what_does_not_fit_is_offered_and_shown(words: str, offer: str, more: list[str]) -> None:
    done(*UPGRADE)
    compact, whole = done(*words.split()), done(*words.split(), "-v")
    assert compact.count(f"-v shows {offer}\n") == 1
    assert "-v shows" not in whole
    for text in (compact, whole):
        assert too_wide(text) == []
        assert "…" not in text
    kept = compact.replace(f"-v shows {offer}\n", "")
    assert [word for word in more if word in kept] == []
    assert [word for word in more if word not in whole] == []


@pytest.mark.usefixtures("_files")
@pytest.mark.skipif(sys.platform == "win32", reason="links to folders need rights on Windows")
def test_a_wide_place_has_room_for_every_metric(monkeypatch: pytest.MonkeyPatch) -> None:
    done(*UPGRADE)
    monkeypatch.delenv("COLUMNS")
    shown = done("eval", "u.safetensors", "--data", "data")
    assert "AR" in shown
    assert "-v shows AP at every IoU threshold and of every category\n" in shown


@pytest.mark.usefixtures("_files")
@pytest.mark.skipif(sys.platform == "win32", reason="links to folders need rights on Windows")
def test_of_many_broken_images_some_are_named_and_with_v_all() -> None:
    Path("broken").mkdir()
    for number in range(12):
        Path(f"broken/{number}.jpg").write_text("no image")
    shutil.copy("data/val/000000.jpg", "broken/whole.jpg")
    told = run("predict", "d.safetensors", "broken").stderr
    assert told.count("is not a readable image") == 10
    assert told.endswith("\nskipped: 2 more, which -v names\n")
    assert run("predict", "d.safetensors", "broken", "-v").stderr.count("skipped: ") == 12


@pytest.mark.usefixtures("_eighty")
@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["train", "--epochs", "many"], "--epochs"),
        (["train", "--held-out", "0.9"], "--held-out"),
        (["predict", "x", "y", "--treshold", "0.3"], "--threshold"),
        (["refine", "better.safetensors"], "--results"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_a_wrong_option_is_named(words: list[str], named: str) -> None:
    result = run(*words)
    assert result.exit_code == 2
    assert too_wide(result.stderr) == []
    assert named in result.stderr


def test_a_terminal_gets_lines_that_end_between_words() -> None:
    text = "one two three\nnext: one two three\nsupercalifragilistic x"
    assert folded(text, 10) == "one two\nthree\nnext: one two three\nsupercalifragilistic\nx"
    assert folded(text, None) == text
    assert folded("\x1b[1mone two three\x1b[0m", 5) == "\x1b[1mone two three\x1b[0m"


def test_a_file_gets_lines_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, width in (("", None), ("40", 40), ("nonsense", None), ("0", None)):
        monkeypatch.setenv("COLUMNS", name)
        assert Patient(io.StringIO()).width == width


def refinebox(*words: str, **environment: str) -> "subprocess.CompletedProcess[bytes]":
    variables = {**os.environ, "PYTHONPATH": str(ROOT), **environment}
    return subprocess.run([sys.executable, "-c", START, *words], env=variables, capture_output=True, check=False)


@pytest.mark.parametrize("encoding", ["cp1252", "ascii"])
@pytest.mark.parametrize("words", [["train", "--help"], ["detectors"], ["predict"]], ids=" ".join)
def test_a_console_that_cannot_print_everything(words: list[str], encoding: str) -> None:
    shown = refinebox(*words, PYTHONIOENCODING=encoding)
    assert shown.returncode == (2 if words == ["predict"] else 0)
    text = shown.stdout + shown.stderr
    assert b"Traceback" not in text
    assert b"refinebox" in text
    text.decode(encoding)


@pytest.mark.skipif(sys.platform == "win32", reason="there are no pseudo-terminals on Windows")
@pytest.mark.parametrize("plain", [True, False])
def test_no_color_is_kept(plain: bool) -> None:
    import pty

    variables = {**os.environ, "PYTHONPATH": str(ROOT), "TERM": "xterm-256color", "COLUMNS": "80"}
    variables.pop("NO_COLOR", None)
    if plain:
        variables["NO_COLOR"] = "1"
    ours, theirs = pty.openpty()
    with subprocess.Popen([sys.executable, "-c", START, "predict", "--help"], env=variables, stdout=theirs) as process:
        os.close(theirs)
        shown = b""
        try:
            while piece := os.read(ours, 65536):
                shown += piece
        except OSError:  # how a terminal says that the other side has left
            pass
    os.close(ours)
    assert process.returncode == 0
    coloured = any(f"\x1b[{code}".encode() in shown for code in (*range(31, 38), "1;3"))
    assert coloured is not plain


@pytest.mark.parametrize(
    ("typed", "offered"),
    [("refinebox pre", {"predict"}), ("refinebox ev", {"eval"}), ("refinebox train --acc", {"--accumulate"})],
)
def test_shells_complete_commands_and_options(typed: str, offered: set[str]) -> None:
    count = str(len(typed.split()) - 1)
    shown = refinebox(_REFINEBOX_COMPLETE="complete_bash", COMP_WORDS=typed, COMP_CWORD=count)
    assert shown.returncode == 0
    assert set(shown.stdout.decode().split()) == offered
