"""Scripts as they run: with their own folder to import from."""

import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"


@pytest.fixture(scope="module")
def script(request: pytest.FixtureRequest) -> Iterator[ModuleType]:
    """The script that the test module is named after."""
    name = request.module.__name__.rpartition(".")[2].removeprefix("test_")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(SCRIPTS)
        yield import_module(name)
        for imported, module in list(sys.modules.items()):
            if Path(getattr(module, "__file__", None) or "").parent == SCRIPTS:
                del sys.modules[imported]
