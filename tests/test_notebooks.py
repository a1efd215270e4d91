"""The notebooks run, on less data than they show, and their commands are those of the command line."""

import re
from pathlib import Path
from typing import Any

import pytest
from notebooks import NOTEBOOKS, cells, execute, shell_lines, source
from typer.main import get_command

from refinebox.commands.app import app

COMMANDS: dict[str, Any] = get_command(app).commands  # type: ignore[attr-defined]
SMALL: dict[str, dict[str, Any]] = {
    "document_detector": {
        "PAGES": {"train": 30, "val": 6, "test": 6},
        "DETECTOR_EPOCHS": 1,
        "REFINER_EPOCHS": 1,
    },
    "yolo_results": {"IMAGES": {"train": 24, "val": 4, "test": 6}, "EPOCHS": 1},
}


def test_every_notebook_is_run() -> None:
    assert {path.stem for path in NOTEBOOKS} == set(SMALL)


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_begins_with_its_title_and_shows_what_came_out(notebook: Path) -> None:
    assert source(cells(notebook, "markdown")[0]).startswith("# ")
    shown = [cell for cell in cells(notebook, "code") if source(cell).startswith("!")]
    assert all(cell["outputs"] for cell in shown)
    text = notebook.read_text(encoding="utf-8")
    assert not re.search(r"\]\((?!https?:)", text)  # which the site would have elsewhere
    assert "Traceback" not in text
    assert "/home/" not in text


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_commands_of_a_notebook_exist(notebook: Path) -> None:
    for program, verb, *words in shell_lines(notebook):
        assert program == "refinebox"
        COMMANDS[verb].make_context(verb, ["1" if word.startswith("{") else word for word in words])


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs(notebook: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if notebook.stem == "document_detector":
        pytest.importorskip("transformers", reason="transformers is not installed; pip install -e '.[test]'")
    monkeypatch.chdir(tmp_path)
    printed = execute(notebook, SMALL[notebook.stem])
    assert len(printed) == len(shell_lines(notebook))
    assert any("validation AP" in text for text in printed)
    assert any(" → " in text for text in printed)
