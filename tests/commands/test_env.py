"""What is told of a machine."""

import platform

import pytest
import torch
from invocation import done

from refinebox.commands import env
from refinebox.files.download import home


def told() -> dict[str, str]:
    lines = [line.partition(":") for line in done("env").splitlines()]
    return {name: said.strip() for name, _, said in lines}


def test_a_report_of_a_bug_has_what_it_needs() -> None:
    lines = told()
    assert lines["python"].startswith(platform.python_version())
    assert lines["torch"].partition("+")[0] == torch.__version__.partition("+")[0]
    assert lines["threads"] == str(torch.get_num_threads())
    assert lines["downloads"] == str(home())
    assert set(env.LIBRARIES) < set(lines)


def test_what_is_not_installed_is_called_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(env, "LIBRARIES", ("a-library-that-nobody-wrote",))
    assert told()["a-library-that-nobody-wrote"] == "not installed"


def test_gpus_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert told()["gpus"].startswith("none that torch ")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_name", "card {}".format)
    assert told()["gpus"] == f"card 0, card 1 (CUDA {torch.version.cuda})"
