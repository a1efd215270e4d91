"""Which module may import which, told from the source."""

import ast
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import refinebox

ROOT = Path(__file__).resolve().parents[1]
PACKAGE, ADAPTERS = (sorted((ROOT / folder).rglob("*.py")) for folder in ("refinebox", "adapters"))
EVERYTHING = [
    path for folder in ("refinebox", "adapters", "scripts", "tests") for path in (ROOT / folder).rglob("*.py")
]
MOST_LINES = 350
# from the top floor down: each may import those below it, never those above
FLOORS = (
    "commands",
    "training",
    "report",
    "analysis",
    "evaluation",
    "adapters",
    "refinement",
    "detection",
    "data",
    "files",
)
# nouns of every floor, which lie below all of them
NOUNS = {"boxes", "progress", "distributed"}
# the names of the package, where it starts, and where its adapters, short and old names are found; they stand above
DOORS = {"__init__", "__main__", "adapters", "moved"}
ADAPTERS_KNOW = ("detection", "boxes", "adapters")


def label(path: Path) -> str:
    return str(path.relative_to(ROOT))


def imports(path: Path) -> Iterator[str]:
    """Full names of everything that is imported, wherever in the file; ``from a import b`` gives ``a.b``."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{label(path)} imports relatively"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def rooms(path: Path) -> set[str]:
    """The rooms and nouns of the package that a file imports from; the package itself, for its version, is none."""
    parts = (name.split(".") for name in imports(path) if name.startswith("refinebox."))
    return {part[1] for part in parts if part[1] not in ("__version__", "moved")}


def room_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return parts[0] if parts[0] == "adapters" else parts[1]


def within(name: str, *modules: str) -> bool:
    return any(name == module or name.startswith(f"{module}.") for module in modules)


def test_imports_are_found(tmp_path: Path) -> None:
    (tmp_path / "module.py").write_text("import a.b\ndef f():\n    from c.d import e, f\n    import g as h\n")
    assert sorted(imports(tmp_path / "module.py")) == ["a.b", "c.d.e", "c.d.f", "g"]


def test_an_arrow_upwards_would_be_found(tmp_path: Path) -> None:
    (tmp_path / "module.py").write_text("from refinebox.commands import app\nfrom refinebox import boxes\n")
    assert rooms(tmp_path / "module.py") == {"commands", "boxes"}


def test_there_is_something_to_check() -> None:
    assert {"app.py", "detector.py", "zoo.py"} <= {path.name for path in PACKAGE}
    assert {"dab_detr.py", "backbone.py"} <= {path.name for path in ADAPTERS}
    assert {room_of(path) for path in [*PACKAGE, *ADAPTERS]} == {*FLOORS, *NOUNS, *DOORS}


@pytest.mark.parametrize("path", PACKAGE + ADAPTERS, ids=label)
def test_arrows_run_down(path: Path) -> None:
    room = room_of(path)
    below = FLOORS[FLOORS.index(room) :] if room in FLOORS else ()
    allowed = {*FLOORS, *NOUNS} if room in DOORS else {*below, *NOUNS}
    assert rooms(path) - allowed == set()


def texts_without_encoding(source: str) -> list[int]:
    """Lines that read or write text in the encoding that the system prefers, which is cp1252 on Windows."""
    calls = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)]
    said = [any(keyword.arg == "encoding" for keyword in call.keywords) for call in calls]
    return sorted(call.lineno for call, known in zip(calls, said, strict=True) if not known and of_the_system(call))


def of_the_system(call: ast.Call) -> bool:
    match call.func:
        case ast.Name(id="open"):
            return not any(isinstance(mode, ast.Constant) and "b" in mode.value for mode in call.args[1:2])
        case ast.Attribute(attr="read_text"):
            return not call.args
        case ast.Attribute(attr="write_text"):
            return len(call.args) < 2
    return False


def test_texts_without_encoding_would_be_found() -> None:
    bad = "open(p)\nopen(p, 'w')\np.read_text()\np.write_text('x')\n"
    good = "open(p, 'rb')\nos.open(p)\nopen(p, encoding='utf-8')\np.read_text('utf-8')\np.read_text(encoding='utf-8')\n"
    assert texts_without_encoding(bad + good) == [1, 2, 3, 4]


@pytest.mark.parametrize("path", PACKAGE + ADAPTERS, ids=label)
def test_texts_say_their_encoding(path: Path) -> None:
    assert texts_without_encoding(path.read_text(encoding="utf-8")) == []


def test_there_are_no_circles_between_modules() -> None:
    names = {path.relative_to(ROOT).with_suffix("").as_posix().replace("/", "."): path for path in PACKAGE}
    above: dict[str, set[str]] = {}
    for name, path in names.items():
        found = set(imports(path))
        above[name] = {module for module in names if any(within(other, module) for other in found)}
    done: set[str] = set()
    while ready := {name for name, wanted in above.items() if name not in done and wanted <= done}:
        done |= ready
    assert set(above) - done == set()


def test_every_room_says_what_it_is_for() -> None:
    for folder in (*(ROOT / "refinebox").iterdir(), ROOT / "adapters", *(ROOT / "adapters").iterdir()):
        if folder.is_dir() and folder.name != "__pycache__":
            text = ast.get_docstring(ast.parse((folder / "__init__.py").read_text()))
            assert text, label(folder)
            assert 1 <= text.count(".") <= 3, text


def test_tests_stand_where_their_modules_do() -> None:
    for path in (ROOT / "tests").rglob("test_*.py"):
        folder = path.parent.relative_to(ROOT / "tests")
        if folder.parts and folder.parts[0] not in ("scripts", "adapters", "field"):
            assert (ROOT / "refinebox" / folder).is_dir(), label(path)


@pytest.mark.parametrize("path", ADAPTERS, ids=label)
def test_adapters_know_the_contract_alone(path: Path) -> None:
    assert rooms(path) <= set(ADAPTERS_KNOW)


@pytest.mark.parametrize("path", PACKAGE, ids=label)
def test_no_module_knows_an_adapter(path: Path) -> None:
    assert [name for name in imports(path) if within(name, "refinebox.adapters")] == []


@pytest.mark.parametrize("path", EVERYTHING, ids=label)
def test_adapters_are_imported_from_the_package(path: Path) -> None:
    assert [name for name in imports(path) if within(name, "adapters")] == []


@pytest.mark.parametrize("path", EVERYTHING, ids=label)
def test_files_are_named_after_what_they_do(path: Path) -> None:
    assert not set(re.split(r"[_/.]", label(path))) & {"utils", "util", "misc", "common", "helpers", "helper"}


@pytest.mark.parametrize("path", PACKAGE + ADAPTERS, ids=label)
def test_files_are_short(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= MOST_LINES


@pytest.mark.parametrize("path", [path for path in PACKAGE if room_of(path) not in ("commands", "progress")], ids=label)
def test_commands_alone_print_and_exit(path: Path) -> None:
    calls = [node.func for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
    names = {ast.unparse(call) for call in calls}
    assert not names & {"print", "typer.echo", "sys.exit", "exit", "console.print"}


RUN = """
import runpy, sys
sys.argv = ["refinebox", *sys.argv[1:]]
try:
    runpy.run_module("refinebox", run_name="__main__")
except SystemExit as exit:
    assert not exit.code, exit.code
"""


@pytest.mark.parametrize(
    ("code", "arguments"),
    [
        ("import refinebox, refinebox.commands.app", []),
        (RUN, ["--help"]),
        (RUN, ["--version"]),
        (RUN, ["train", "--help"]),
    ],
    ids=["import", "--help", "--version", "train --help"],
)
def test_torch_is_not_imported_before_it_is_needed(code: str, arguments: list[str]) -> None:
    told = f"{code}\nprint('torch' in sys.modules, file=sys.stderr)"
    completed = subprocess.run(
        [sys.executable, "-c", f"import sys\n{told}", *arguments],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (completed.returncode, completed.stderr) == (0, "False\n")


def test_detections_of_a_file_are_analysed_without_torch(shapes_folder: Path, tmp_path: Path) -> None:
    truth = json.loads((shapes_folder / "annotations" / "instances_val.json").read_text())["annotations"]
    (tmp_path / "results.json").write_text(json.dumps([{**entry, "score": 0.5} for entry in truth]))
    options = [
        "oracle-analysis",
        "--results",
        "results.json",
        "--data",
        shapes_folder,
        "--json",
        "figures.json",
        "--html",
        "r.html",
    ]
    completed = subprocess.run(
        [sys.executable, "-c", f"{RUN}\nprint('torch' in sys.modules, file=sys.stderr)", *map(str, options)],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (completed.returncode, completed.stderr) == (0, "False\n")
    assert json.loads((tmp_path / "figures.json").read_text())["swaps"]["none"]["AP"] == pytest.approx(100)


@pytest.mark.parametrize("name", refinebox.__all__)
def test_public_names_resolve(name: str) -> None:
    assert getattr(refinebox, name).__name__ == name


def test_all_homes_are_public() -> None:
    assert sorted(refinebox._HOMES) == sorted(refinebox.__all__)


def test_other_names_do_not_resolve() -> None:
    with pytest.raises(AttributeError, match=r"^module 'refinebox' has no attribute 'nonsense'$"):
        refinebox.nonsense  # noqa: B018
