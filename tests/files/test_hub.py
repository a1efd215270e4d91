"""Files and folders of the Hugging Face hub: from its own cache, and one line where there is no way to it."""

import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
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


FILES: dict[str, dict[str, bytes]] = {
    "org/one": {"better.safetensors": b"one", "README.md": b"---\nlicense: 'mit'\ntags: [a]\n---\n# One\nlicense: gpl"},
    "org/two": {"a.safetensors": b"a", "deep/b.pth": b"b"},
    "org/upgraded": {"model.safetensors": b"upgraded"},
    "org/folder": {"config.json": b"{}", "model.safetensors": b"weights", "README.md": b"# No head"},
}
COMMIT = "0" * 40


class Answer(BaseHTTPRequestHandler):
    """What the hub answers of these repositories."""

    def do_HEAD(self) -> None:
        self.answer()

    def do_GET(self) -> None:
        self.answer()

    def answer(self) -> None:
        parts = self.path.partition("?")[0].strip("/").split("/")
        if parts[0] == "api":
            files = FILES.get("/".join(parts[2:4]))
            if files is None:
                return self.reply(401, b"{}", {"X-Error-Code": "RepoNotFound"})
            listed = [{"type": "file", "path": n, "size": len(c), "oid": name_of(c)} for n, c in files.items()]
            info = {"id": "/".join(parts[2:4]), "sha": COMMIT, "siblings": [{"rfilename": name} for name in files]}
            return self.reply(200, json.dumps(listed if "tree" in parts else info).encode(), {})
        content = FILES.get("/".join(parts[:2]), {}).get("/".join(parts[4:]))
        if content is None:
            return self.reply(404, b"", {"X-Error-Code": "EntryNotFound"})
        self.reply(200, content, {"X-Repo-Commit": COMMIT, "ETag": f'"{name_of(content)}"'})
        return None

    def reply(self, code: int, content: bytes, headers: dict[str, str]) -> None:
        self.send_response(code)
        for name, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)

    def log_message(self, *_: Any) -> None:
        """Says nothing."""


def name_of(content: bytes) -> str:
    return hashlib.sha1(content).hexdigest()


@pytest.fixture(scope="module")
def server() -> Iterator[ThreadingHTTPServer]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Answer) as found:
        thread = threading.Thread(target=found.serve_forever, daemon=True)
        thread.start()
        yield found
        found.shutdown()
        thread.join()


ASK = """
import sys
from refinebox.files import hub
for name in sys.argv[1:]:
    try:
        print(hub.local(name).read_text() if ":" in name else sorted(path.name for path in [hub.local(name)]))
    except (ValueError, OSError) as error:
        print(type(error).__name__, error)
print(hub.licence("org/one"), hub.licence("org/folder"), hub.licence("org/none"))
"""
NAMES = (
    "org/one:better.safetensors",
    "org/one",
    "org/two",
    "org/two:deep/b.pth",
    "org/upgraded",
    "org/folder",
    "org/none",
)


def told(port: int, home: Path, *names: str, **environment: str) -> list[str]:
    """What a process of its own says of names; the hub's library reads its settings once."""
    variables = {
        **os.environ,
        "HF_ENDPOINT": f"http://127.0.0.1:{port}",
        "HF_HOME": str(home),
        "PYTHONPATH": str(Path(__file__).resolve().parents[2]),
        **environment,
    }
    done = subprocess.run(
        [sys.executable, "-c", ASK, *names], env=variables, capture_output=True, text=True, check=True, cwd=home
    )
    return done.stdout.splitlines()


def test_what_the_hub_has_is_fetched_once(server: ThreadingHTTPServer, tmp_path: Path) -> None:
    online = told(server.server_port, tmp_path, *NAMES)
    assert online[:2] == ["one", "['better.safetensors']"]
    assert online[2] == (
        "ValueError org/two of the hub holds several checkpoints (a.safetensors, deep/b.pth); name one as org/two:FILE"
    )
    assert online[3:5] == ["b", "['model.safetensors']"]
    assert online[5] == f"['{COMMIT}']"  # a folder of transformers
    assert online[6].startswith("ConnectionError org/none is no folder here and could not be had from the Hugging Face")
    assert online[7] == "mit None None"
    offline = told(1, tmp_path, *NAMES, HF_HUB_OFFLINE="1")
    assert offline[:6] == online[:6]
    assert offline[6].startswith("ConnectionError org/none is no folder here")
    assert offline[7] == "mit None None"


def test_a_file_that_cannot_be_had_is_said_in_one_line(server: ThreadingHTTPServer, tmp_path: Path) -> None:
    for offline in ("0", "1"):
        [line, _] = told(server.server_port, tmp_path, "org/one:none.pth", HF_HUB_OFFLINE=offline)
        assert line.startswith("ConnectionError org/one:none.pth is no file here and could not be had from the Hugging")
        assert line.endswith("; get it from https://huggingface.co/org/one")


def test_paths_stay_as_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "org").mkdir()
    (tmp_path / "org/name").write_text("here")
    assert [hub.local(name) for name in ("org/name", "runs/a.pth", Path("b.onnx"))] == [
        *(Path("org/name"), Path("runs/a.pth"), Path("b.onnx"))
    ]
