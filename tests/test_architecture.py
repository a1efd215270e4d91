"""Which module may import which, told from the source."""

import ast
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


def within(name: str, *modules: str) -> bool:
    return any(name == module or name.startswith(f"{module}.") for module in modules)


def test_imports_are_found(tmp_path: Path) -> None:
    (tmp_path / "module.py").write_text("import a.b\ndef f():\n    from c.d import e, f\n    import g as h\n")
    assert sorted(imports(tmp_path / "module.py")) == ["a.b", "c.d.e", "c.d.f", "g"]


def test_there_is_something_to_check() -> None:
    assert {"app.py", "detector.py", "zoo.py"} <= {path.name for path in PACKAGE}
    assert {"dab_detr.py", "backbone.py"} <= {path.name for path in ADAPTERS}


@pytest.mark.parametrize("path", ADAPTERS, ids=label)
def test_adapters_know_the_contract_alone(path: Path) -> None:
    ours = [name for name in imports(path) if within(name, "refinebox")]
    allowed = "refinebox.detection", "refinebox.boxes", "refinebox.adapters"
    assert [name for name in ours if not within(name, *allowed)] == []


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


@pytest.mark.parametrize("name", refinebox.__all__)
def test_public_names_resolve(name: str) -> None:
    assert getattr(refinebox, name).__name__ == name


def test_all_homes_are_public() -> None:
    assert sorted(refinebox._HOMES) == sorted(refinebox.__all__)


def test_other_names_do_not_resolve() -> None:
    with pytest.raises(AttributeError, match=r"^module 'refinebox' has no attribute 'nonsense'$"):
        refinebox.nonsense  # noqa: B018
