"""Published files, fetched once and kept: resumed where broken off, checked by hash, renamed into place when whole."""

import hashlib
import os
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from http.client import HTTPException, HTTPResponse
from pathlib import Path

from refinebox.progress import track

CHUNK = 1 << 20  # bytes
TIMEOUT = 30.0  # seconds without a byte


@dataclass(frozen=True)
class File:
    """A published file.

    Attributes:
        url: where it is.
        path: where it is kept.
        sha256: hexadecimal, or the beginning of it that is published; empty where nothing is.
    """

    url: str
    path: Path
    sha256: str = ""


def home() -> Path:
    """The folder that downloads are kept in: ``REFINEBOX_HOME``, or ``~/.cache/refinebox``."""
    return Path(os.environ.get("REFINEBOX_HOME") or Path.home() / ".cache" / "refinebox")


def fetch(file: File) -> Path:
    """``file.path``, downloaded if it is not there. What a broken transfer leaves is continued by the next call.

    Raises:
        ConnectionError: the address cannot be reached, answers with an error or breaks off; the message says where to
            put the file by hand.
        ValueError: the file's hash is not the published one; it is removed.
    """
    if file.path.is_file():
        return file.path
    part = file.path.with_name(f"{file.path.name}.part")
    part.parent.mkdir(parents=True, exist_ok=True)
    try:
        if not (file.sha256 and part.is_file() and sha256_of(part).startswith(file.sha256)):  # not whole yet
            _transfer(file.url, part)
    except (OSError, HTTPException) as error:
        reason = getattr(error, "reason", None) or error
        raise ConnectionError(
            f"could not download {file.url} ({reason}); try again, or download it by hand and put it at {file.path}"
        ) from error
    check(part, file.sha256, file.url)
    part.replace(file.path)
    return file.path


def check(path: Path, sha256: str, url: str) -> None:
    """Removes ``path`` and raises ValueError unless its hash begins with ``sha256``."""
    found = sha256_of(path)
    if not found.startswith(sha256):
        path.unlink()
        raise ValueError(
            f"{url} has the wrong content: its SHA-256 is {found}, expected {sha256}; try again or ask its publisher"
        )


def sha256_of(path: Path) -> str:
    """Hexadecimal SHA-256 of a file's bytes."""
    with path.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def _transfer(url: str, part: Path) -> None:
    """Appends to ``part`` what it lacks; starts anew where the server cannot continue."""
    have = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    try:
        response = urllib.request.urlopen(request, timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        if error.code != 416:  # there is nothing after what we have, or the file is another one now
            raise
        error.close()
        response = urllib.request.urlopen(url, timeout=TIMEOUT)
    with response:
        continued = response.status == 206
        length = int(response.headers.get("Content-Length") or 0)
        with part.open("ab" if continued else "wb") as target:
            for chunk in track(_chunks(response), f"download {part.stem}, MiB", -(-length // CHUNK)):
                target.write(chunk)
            whole = length + (have if continued else 0)
            if length and target.tell() < whole:
                raise ConnectionError(f"it broke off after {target.tell():,} of {whole:,} bytes")


def _chunks(response: HTTPResponse) -> Iterator[bytes]:
    while chunk := response.read(CHUNK):
        yield chunk
