"""Ids of every kind become whole numbers inside, and come out as they went in."""

from typing import Any

import pytest

from refinebox.data.ids import LARGEST, Ids

KEPT: dict[str, list[Any]] = {
    "numbers": [3, 900_100_581_929, 0],
    "floats": [1.0, 2.0],
    "text": ["1", "2", "10"],
    "decimals": ["1.0", "2.0"],
    "mixed": ["1", 2, 3.0],
    "largest": [LARGEST],
}


@pytest.mark.parametrize("ids", KEPT.values(), ids=KEPT)
def test_whole_numbers_are_kept_in_whatever_type(ids: list[Any]) -> None:
    found = Ids.of(ids)
    assert [found.number(value) for value in ids] == [int(float(value)) for value in ids] == list(found.originals)
    assert not found.renumbered
    for number, value in zip(found.originals, ids, strict=True):
        assert found.originals[number] is value
        assert found.number(number) == found.number(float(number)) == found.number(str(number)) == number


OTHERS: dict[str, list[Any]] = {
    "hashes": [2**64 + 5, 2**64 + 6],
    "beyond floats": [LARGEST + 1, LARGEST + 2],
    "negative": [-1, -2, 3],
    "names": ["kitchen", "garden"],
    "hexadecimal": ["0a1f", "ff00"],
    "underscores": ["1_2", "12"],
    "leading zeros beside": ["007", 7],
    "broken": [1.5, 2.5],
}


@pytest.mark.parametrize("ids", OTHERS.values(), ids=OTHERS)
def test_other_ids_are_numbered_and_found_again(ids: list[Any]) -> None:
    found = Ids.of(ids)
    assert list(found.originals) == list(range(1, len(ids) + 1))
    assert found.renumbered
    assert [found.number(value) for value in ids] == list(found.originals)
    assert list(found.originals.values()) == ids


@pytest.mark.parametrize("value", [99, "99", "", None, [1], {}, 1.5, "1_2", True, 2**70, float("nan")], ids=str)
def test_what_is_not_there_is_not_found(value: Any) -> None:
    assert Ids.of([1, 2, 12]).number(value) is None


def test_numbers_of_another_kind_are_told_apart() -> None:
    found = Ids.of(["7", 8, 9.0])
    assert found.changed == {7: "7"}
