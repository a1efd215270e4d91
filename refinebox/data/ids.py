"""Ids as other tools write them: whole numbers inside, and outside what came in."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from refinebox.data.fields import whole

LARGEST = 2**53  # beyond which a float, and with it a row of detections, no longer holds every whole number


@dataclass(frozen=True)
class Ids:
    """The ids of the images, or of the categories, of one file.

    Inside an id is a whole number from 0 to 2^53: itself where every id of the file is one, in digits or as text, and
    otherwise its place in the file, from 1 on. Hashes, negative numbers and names are such others.

    Attributes:
        originals: of each number, the id as the file has it.
    """

    originals: Mapping[int, Any]

    @classmethod
    def of(cls, originals: Iterable[Any]) -> "Ids":
        """For distinct ids as they stand in a file."""
        ids = list(originals)
        numbers = [value for value in map(whole, ids) if value is not None and 0 <= value <= LARGEST]
        plain = len(set(numbers)) == len(ids)
        return cls(dict(zip(numbers if plain else range(1, len(ids) + 1), ids, strict=True)))

    @property
    def changed(self) -> dict[int, Any]:
        """Of the numbers that are not the file's, its ids: 7 is not "7", though it is 7.0."""
        return {number: value for number, value in self.originals.items() if value != number}

    @property
    def renumbered(self) -> bool:
        """Whether numbers are places."""
        return any(whole(value) != number for number, value in self.originals.items())

    def number(self, value: Any) -> int | None:
        """The number of an id as some file has it, in whatever type; None for an id that is not among them."""
        found = self._numbers.get(_text(value))
        return self._numbers.get(str(whole(value))) if found is None else found

    @cached_property
    def _numbers(self) -> dict[str, int]:
        wholes = {number: str(whole(value)) for number, value in self.originals.items() if whole(value) is not None}
        distinct = len(set(wholes.values())) == len(wholes)  # "007" and 7 are one id, unless both are there
        found = {value: number for number, value in wholes.items()} if distinct else {}
        return found | {_text(value): number for number, value in self.originals.items()}


def _text(value: Any) -> str:
    return value.strip() if isinstance(value, str) else str(value)
