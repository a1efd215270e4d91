"""A share of many images, told from their names alone, so that every machine knows its own without asking."""

import hashlib
import os
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from refinebox import distributed
from refinebox.report.predictions import find_images


@dataclass(frozen=True)
class Shard:
    """The ``number``-th of ``total`` shares, counted from 1."""

    number: int = 1
    total: int = 1

    @classmethod
    def of(cls, text: str) -> Self:
        """From ``2/8``, the second of eight.

        Raises:
            ValueError: it is written otherwise, or there is no such share.
        """
        number, slash, total = text.partition("/")
        if not (slash and number.isdecimal() and total.isdecimal() and int(total)):
            raise ValueError(f"the shard {text!r} is no i/n; expected such as 2/8, the second of eight")
        if not 1 <= int(number) <= int(total):
            raise ValueError(f"there is no shard {text}; expected 1/{total} to {total}/{total}")
        return cls(int(number), int(total))

    def __str__(self) -> str:
        return f"{self.number}/{self.total}"

    def of_process(self) -> Self:
        """What this process takes of it, where torchrun has started several."""
        processes = distributed.processes()
        return type(self)((self.number - 1) * processes + distributed.rank() + 1, self.total * processes)

    def holds(self, name: str) -> bool:
        """Whether the image of this name is in it: by SHA-256, so that shares are equal but for chance."""
        digest = hashlib.sha256(plain(name).encode()).digest()
        return int.from_bytes(digest[:8], "big") % self.total == self.number - 1


def plain(name: str) -> str:
    """A name in composed letters, as which it is the same on every system."""
    return unicodedata.normalize("NFC", name)


def named(inputs: Sequence[Path], *, recursive: bool = False) -> dict[str, Path]:
    """The images in the given files and folders, sorted within each folder, by the names they have in results.

    That is the path below the folder that was given, with ``/`` on every system, so that it stays the same wherever
    the folder lies; of a file that was given itself it is the path as given.

    Raises:
        FileNotFoundError: an input does not exist, or a folder holds no images.
        ValueError: no images are named, or two would have one name.
    """
    if not inputs:
        raise ValueError("no images named; expected image files or folders of images")
    found: dict[str, Path] = {}
    for item in inputs:
        for path in find_images([item], recursive=recursive):
            name = text_of((path.relative_to(item) if item.is_dir() else path).as_posix())
            if found.setdefault(name, path) != path:
                raise ValueError(
                    f"{found[name]} and {path} would both be {name} in the results; name the folder of both, with "
                    "--recursive, or give each its own --output"
                )
    return found


def text_of(name: str) -> str:
    """A file's name in letters that UTF-8 has; other bytes, which Linux allows, as ``\\xff``."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")
