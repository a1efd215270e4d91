"""Places to write to, looked at before the work whose result goes there."""

import os
from collections.abc import Iterable
from pathlib import Path


def check_file(path: Path, kind: str = "file") -> None:
    """Raises OSError where a file cannot be written: it is a folder, or its folder cannot be one or be written to."""
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder; name a {kind} to write")
    check_folder(path.parent)


def check_folder(folder: Path, purpose: str = "") -> None:
    """Raises OSError where a folder, which need not be there, is a file or in one, or may not be written to."""
    if folder.exists() and not folder.is_dir():
        raise NotADirectoryError(f"{folder} is a file; name a folder{purpose}")
    there = next((path for path in (folder, *folder.parents) if path.exists()), Path())
    if not there.is_dir():
        raise NotADirectoryError(f"{there} is a file, so {folder} cannot be a folder; name another")
    if not os.access(there, os.W_OK | os.X_OK):
        raise PermissionError(f"{there} may not be written to; name another folder")


def check_apart(written: Iterable[Path], read: Iterable[Path | None]) -> None:
    """Raises FileExistsError where a file to write is one that is read, or in a folder that is, and would be lost."""
    named = [path for path in read if path is not None]
    files = {each for path in named for each in (path.iterdir() if path.is_dir() else [path])}
    known = {identity(path) for path in files if path.is_file()}
    for path in written:
        if path.is_file() and identity(path) in known:
            raise FileExistsError(f"{path} is a file that is read, and would be lost; name another to write")


def identity(path: Path) -> tuple[int, int]:
    """What a file has under all of its names."""
    found = path.stat()
    return found.st_dev, found.st_ino
