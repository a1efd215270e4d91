"""From the names of images in an annotation file to the files that they mean."""

import re
import unicodedata
from collections.abc import Iterable
from pathlib import Path
from urllib.parse import unquote

SUFFIXES = (".jpg", ".jpeg", ".jfif", ".png", ".bmp", ".webp", ".tif", ".tiff", ".gif", ".avif", ".heic", ".heif")


def found(names: Iterable[str], folder: Path) -> dict[str, str]:
    """The path below ``folder`` of each name that has a file there; names without one are not in it.

    A name means itself if it can. Otherwise it means the one file that has its last parts, as many as possible, where
    backslashes, letter case, the form of accented letters and, in names without it, the ending do not count. A file
    that another name means by itself, or that two names would mean, is taken for neither.
    """
    wanted = list(dict.fromkeys(names))
    direct = {name: name for name in wanted if exists(folder, name)}
    missing = [name for name in wanted if name not in direct]
    if not missing or not folder.is_dir():
        return direct
    index = Index(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    meant = {name: file for name in missing if (file := index.meant(name))}
    taken = list(meant.values()) + list(direct.values())
    return direct | {name: file for name, file in meant.items() if taken.count(file) == 1}


def exists(folder: Path, name: str) -> bool:
    """Whether there is such a file; names that no file can have are none."""
    try:
        return (folder / name).is_file()
    except (OSError, ValueError):  # too long, or with a null character
        return False


class Index:
    """Files by the last parts of their paths."""

    def __init__(self, paths: Iterable[str]) -> None:
        self.files: dict[str, list[tuple[list[str], str]]] = {}
        for path in paths:
            parts = parts_of(path)
            for key in {parts[-1], stem(parts[-1]), *number(stem(parts[-1]))}:
                self.files.setdefault(key, []).append((parts, path))

    def meant(self, name: str) -> str | None:
        """The one file that ``name`` can mean."""
        for text in dict.fromkeys((name, unquote(name))):
            parts = parts_of(text)
            last = parts[-1] if parts else ""
            candidates = self.files.get(last, [])
            if not candidates and not last.endswith(SUFFIXES):
                candidates = self.files.get(stem(last), []) or [c for n in number(last) for c in self.files.get(n, [])]
            ranked = sorted(((shared(parts, theirs), file) for theirs, file in candidates), reverse=True)
            if ranked and (len(ranked) == 1 or ranked[0][0] > ranked[1][0]):
                return ranked[0][1]
        return None


def parts_of(name: str) -> list[str]:
    """The folders and the file of a path of any system, in lower case and composed letters."""
    plain = unicodedata.normalize("NFC", name).casefold()
    return [part for part in re.split(r"[\\/]+", plain) if part not in ("", ".", "..")]


def stem(name: str) -> str:
    """A file's name without the ending of an image."""
    return next((name.removesuffix(suffix) for suffix in SUFFIXES if name.endswith(suffix)), name)


def number(text: str) -> list[str]:
    """A name of digits alone as a table program leaves it, marked as such; nothing for other names."""
    return [f"#{int(text)}"] if text.isdecimal() else []


def shared(parts: list[str], others: list[str]) -> int:
    """How many folders before the file are the same."""
    count = 0
    for mine, theirs in zip(reversed(parts[:-1]), reversed(others[:-1]), strict=False):
        if mine != theirs:
            break
        count += 1
    return count
