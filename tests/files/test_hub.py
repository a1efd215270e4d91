"""Folders of the Hugging Face hub: from its own cache, and one line where there is no way to it."""

import sys
from pathlib import Path
from typing import Any

import pytest

from refinebox.files import hub

huggingface_hub = pytest.importorskip("huggingface_hub", reason="comes with the extra transformers")


class Hub:
    """Holds some files of ``org/name`` and notes what is asked for."""

    def __init__(self, cache: Path, *files: str) -> None:
        self.cache, self.files, self.asked = cache, files, []  # type: ignore[var-annotated]

    def snapshot_download(self, name: str, allow_patterns: list[str]) -> str:
        self.asked.append(allow_patterns[-1])
        for file in self.files:
            if Path(file).match(allow_patterns[-1]):
                (self.cache / file).touch()
        return str(self.cache)


@pytest.mark.parametrize(
    ("file", "requests"), [("model.safetensors", 1), ("model-1-of-2.safetensors", 1), ("pytorch_model.bin", 2)]
)
def test_one_kind_of_weights_is_fetched(
    file: str, requests: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = Hub(tmp_path, file, "pytorch_model.bin")
    monkeypatch.setattr(huggingface_hub, "snapshot_download", there.snapshot_download)
    assert hub.folder("org/name") == tmp_path
    assert there.asked == list(hub.WEIGHTS[:requests])
    assert (tmp_path / file).exists()


@pytest.mark.parametrize("error", [FileNotFoundError("not in the cache\nmore"), ValueError("no such repository")])
def test_what_cannot_be_had_is_said_in_one_line(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> str:
        raise error

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fail)
    first = str(error).split("\n")[0]
    expected = rf"^org/name is no folder here and could not be had from the Hugging Face hub \({first}\); get config"
    with pytest.raises(ConnectionError, match=expected) as raised:
        hub.folder("org/name")
    assert "\n" not in str(raised.value)


def test_a_missing_library_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(ValueError, match=r"^org/name is on the Hugging Face hub, .* 'refinebox\[transformers\]', or"):
        hub.folder("org/name")
