"""Notebooks, run without a kernel: cells one after the other in this process, where every library is loaded already."""

import json
import shlex
from pathlib import Path
from typing import Any

from documents import ROOT
from invocation import run

NOTEBOOKS = sorted((ROOT / "docs" / "notebooks").glob("*.ipynb"))


def cells(notebook: Path, kind: str) -> list[dict[str, Any]]:
    content = json.loads(notebook.read_text(encoding="utf-8"))
    return [cell for cell in content["cells"] if cell["cell_type"] == kind]


def source(cell: dict[str, Any]) -> str:
    return "".join(cell["source"])


def shell_lines(notebook: Path) -> list[list[str]]:
    """The words of every ``!refinebox ...`` line."""
    lines = [line for cell in cells(notebook, "code") for line in source(cell).splitlines()]
    return [shlex.split(line[1:]) for line in lines if line.startswith("!")]


def execute(notebook: Path, parameters: dict[str, Any]) -> list[str]:
    """Runs all cells, with other ``parameters`` after the cell that is tagged so; what each command printed."""
    printed: list[str] = []

    def command(words: str) -> None:
        program, *arguments = shlex.split(words.format(**names))
        assert program == "refinebox"
        if arguments[0] == "apply":
            arguments.append("--force")  # so short a training may well do harm
        result = run(*arguments)
        assert result.exit_code == 0, f"{words}: {result.output}"
        printed.append(result.stdout)

    names: dict[str, Any] = {"__name__": "notebook", "_command": command}
    for cell in cells(notebook, "code"):
        lines = (f"_command({line[1:]!r})" if line.startswith("!") else line for line in source(cell).splitlines())
        exec(compile("\n".join(lines), notebook.name, "exec"), names)
        if "parameters" in cell["metadata"].get("tags", []):
            assert parameters.keys() <= names.keys()
            names |= parameters
    return printed
