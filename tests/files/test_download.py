"""Downloads from a server on this machine that breaks off, forgets, lies and refuses."""

import hashlib
import os
import random
import re
import threading
from collections.abc import Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.error import URLError

import pytest

from refinebox.files import download
from refinebox.files.download import File, fetch, home

CONTENT = random.Random(0).randbytes(3_000_000)
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class Server(ThreadingHTTPServer):
    """Serves :data:`CONTENT`; what it does otherwise can be set, and what it was asked for be seen."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.content = CONTENT
        self.breaks_after: int | None = None  # bytes of the whole file
        self.knows_ranges = True
        self.says_length = True
        self.status: int | None = None
        self.ranges: list[str | None] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/file.pth"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        wanted = self.headers.get("Range")
        self.server.ranges.append(wanted)
        if self.server.status:
            self.send_error(self.server.status)
            return
        start = int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted and self.server.knows_ranges else 0
        content = self.server.content
        if start >= len(content):
            self.send_error(416)
            return
        self.send_response(206 if start else 200)
        if self.server.says_length:
            self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        self.wfile.write(content[start : self.server.breaks_after])

    def log_message(self, *_: object) -> None:
        """Nothing, so that the tests' output stays readable."""


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as running:
        thread = threading.Thread(target=partial(running.serve_forever, poll_interval=0.01))
        thread.start()
        yield running
        running.shutdown()
        thread.join()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "new" / "folder" / "file.pth"


def files_of(path: Path) -> list[str]:
    return sorted(os.listdir(path.parent))


@pytest.mark.parametrize("sha256", [SHA256, SHA256[:8], ""], ids=["whole", "prefix", "none"])
def test_a_file_is_fetched_and_checked(sha256: str, server: Server, path: Path) -> None:
    assert fetch(File(server.url, path, sha256)) == path
    assert path.read_bytes() == CONTENT
    assert files_of(path) == ["file.pth"]
    assert server.ranges == [None]


def test_what_is_there_is_not_fetched_again(server: Server, path: Path) -> None:
    path.parent.mkdir(parents=True)
    path.write_bytes(b"mine")
    assert fetch(File(server.url, path, SHA256)) == path
    assert path.read_bytes() == b"mine"
    assert server.ranges == []


def test_a_length_that_is_not_said_is_no_error(server: Server, path: Path) -> None:
    server.says_length = False
    fetch(File(server.url, path, SHA256))
    assert path.read_bytes() == CONTENT


@pytest.mark.parametrize("expected", ["0" * 64, "00000000"], ids=["whole", "prefix"])
def test_a_wrong_hash_removes_the_file_and_says_both(expected: str, server: Server, path: Path) -> None:
    message = (
        rf"^{server.url} has the wrong content: its SHA-256 is {SHA256}, expected {expected}; "
        r"try again or ask its publisher$"
    )
    with pytest.raises(ValueError, match=message):
        fetch(File(server.url, path, expected))
    assert files_of(path) == []


def refused(file: File, reason: str) -> None:
    """The one message for everything that keeps a file from coming: why, the address, and what to do by hand."""
    message = (
        rf"^could not download {re.escape(file.url)} \({reason}\); "
        rf"try again, or download it by hand and put it at {re.escape(str(file.path))}$"
    )
    with pytest.raises(ConnectionError, match=message):
        fetch(file)
    assert not file.path.exists()


@pytest.mark.parametrize(("status", "reason"), [(404, "Not Found"), (403, "Forbidden"), (500, ".*Server Error")])
def test_a_refusal_names_the_address_and_the_path(status: int, reason: str, server: Server, path: Path) -> None:
    server.status = status
    refused(File(server.url, path), reason)
    assert files_of(path) == []


def test_a_server_that_is_not_there_is_named(server: Server, path: Path) -> None:
    url = server.url.replace(str(server.server_port), "1")
    refused(File(url, path), r".*Connection refused.*")


def test_no_network_is_one_message(path: Path) -> None:
    """As from a machine without one; see conftest."""
    refused(File("https://example.org/file.pth", path), "tests have no network")


def test_a_server_that_falls_silent_is_left(server: Server, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answered = threading.Event()

    def wait(_: Any) -> None:
        answered.wait(5)

    monkeypatch.setattr(download, "TIMEOUT", 0.05)
    monkeypatch.setattr(Handler, "do_GET", wait)
    refused(File(server.url, path), "timed out")
    answered.set()


def test_a_broken_transfer_is_kept_and_resumed(server: Server, path: Path) -> None:
    server.breaks_after = 1_300_000
    refused(File(server.url, path, SHA256), r"it broke off after 1,300,000 of 3,000,000 bytes")
    assert files_of(path) == ["file.pth.part"]
    assert path.with_name("file.pth.part").read_bytes() == CONTENT[:1_300_000]
    server.breaks_after = 2_500_000
    refused(File(server.url, path, SHA256), r"it broke off after 2,500,000 of 3,000,000 bytes")
    server.breaks_after = None
    fetch(File(server.url, path, SHA256))
    assert server.ranges == [None, "bytes=1300000-", "bytes=2500000-"]
    assert path.read_bytes() == CONTENT
    assert files_of(path) == ["file.pth"]


def part_of(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True)
    path.with_name("file.pth.part").write_bytes(content)


def test_a_server_that_cannot_resume_starts_anew(server: Server, path: Path) -> None:
    server.knows_ranges = False
    part_of(path, b"x" * 1000)
    fetch(File(server.url, path, SHA256))
    assert server.ranges == ["bytes=1000-"]
    assert path.read_bytes() == CONTENT


@pytest.mark.parametrize("content", [CONTENT + b"more", b"x" * len(CONTENT)], ids=["long", "other"])
def test_nothing_left_to_send_starts_anew(content: bytes, server: Server, path: Path) -> None:
    part_of(path, content)
    fetch(File(server.url, path, SHA256))
    assert server.ranges == [f"bytes={len(content)}-", None]
    assert path.read_bytes() == CONTENT
    assert files_of(path) == ["file.pth"]


def test_a_part_that_is_whole_is_taken_as_it_is(server: Server, path: Path) -> None:
    """What a run leaves that was ended between the last byte and the check."""
    part_of(path, CONTENT)
    assert fetch(File(server.url, path, SHA256)).read_bytes() == CONTENT
    assert server.ranges == []
    assert files_of(path) == [path.name]


def test_a_resumed_file_of_other_content_is_not_kept(server: Server, path: Path) -> None:
    part_of(path, b"x" * 1000)
    with pytest.raises(ValueError, match=rf"^{server.url} has the wrong content: its SHA-256 is \w{{64}}, expected "):
        fetch(File(server.url, path, SHA256))
    assert files_of(path) == []
    fetch(File(server.url, path, SHA256))
    assert path.read_bytes() == CONTENT


def test_a_folder_that_cannot_be_written_is_an_error(server: Server, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("kept")
    with pytest.raises(OSError, match="file"):
        fetch(File(server.url, tmp_path / "file" / "file.pth"))
    assert (tmp_path / "file").read_text() == "kept"


def test_downloads_are_kept_where_the_environment_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REFINEBOX_HOME", str(tmp_path / "mine"))
    assert home() == tmp_path / "mine"
    for name in ("REFINEBOX_HOME", "HOME"):
        monkeypatch.setenv(name, "")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert home() == tmp_path / ".cache" / "refinebox"
    monkeypatch.delenv("REFINEBOX_HOME")
    assert home() == tmp_path / ".cache" / "refinebox"


def test_these_tests_reach_no_other_machine(path: Path) -> None:
    with pytest.raises(URLError, match="tests have no network"):
        download.urllib.request.urlopen("https://example.org")
