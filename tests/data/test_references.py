"""Images and categories that a results file names in its own way."""

from pathlib import Path
from typing import Any

import pytest

from refinebox.data.annotations import CocoData
from refinebox.data.references import categories, images, reference
from refinebox.data.tally import Tally

FILES = ("a/000010.jpg", "a/000020.jpg", "b/dog one.png")
DATA = CocoData(
    images=[{"id": number, "file_name": name} for number, name in enumerate(FILES, start=1)],
    annotations=[{"category_id": number, "image_id": 1} for number in (3, 5)],
    categories={0: "animal", 3: "Cat", 5: "dog"},
    folder=Path(),
    notes={},
)


def numbers(*entries: dict[str, Any], data: CocoData = DATA) -> list[int]:
    found = images(entries, data, Tally())
    return [found[reference(entry)] for entry in entries]


@pytest.mark.parametrize(
    "ids",
    [[1, 2, 3], [1.0, 2.0, 3.0], ["1", "2", "3"], ["000010", "000020", "dog one"], [10, 20, "dog one"], list(FILES)],
)
def test_ids_stems_names_and_numbers_say_which_image(ids: list[Any]) -> None:
    assert numbers(*({"image_id": value} for value in ids)) == [1, 2, 3]


@pytest.mark.parametrize("ids", [[0, 1, 2], [3, 1, 2], ["x", "y", "z"], [None] * 3])
@pytest.mark.parametrize("folder", ["", "/data/photos/", "C:\\photos\\"])
def test_file_names_say_which_image_whatever_the_ids(ids: list[Any], folder: str) -> None:
    entries = [
        {"image_id": value, "file_name": folder + name.replace("/", "\\" if "\\" in folder else "/")}
        for value, name in zip(ids, FILES, strict=True)
    ]
    assert numbers(*entries) == [1, 2, 3]


def test_what_was_guessed_is_counted() -> None:
    tally = Tally()
    images([{"image_id": "000010"}, {"image_id": "dog one"}], DATA, tally)
    images([{"image_id": 7, "file_name": FILES[0]}], DATA, tally)
    assert tally.notes() == {
        "image ids matched with the names of the files, such as '000010'": 2,
        "image ids that are not the data's, matched by file_name, such as a/000010.jpg": 1,
    }


def test_numbers_with_marks_are_none() -> None:
    with pytest.raises(ValueError, match="image ids that the data does not have: 1_0"):
        numbers({"image_id": "1_0"})


def test_names_that_contradict_are_an_error() -> None:
    named, other = {"image_id": 2, "file_name": FILES[0]}, {"image_id": 3, "file_name": "none.jpg"}
    with pytest.raises(ValueError, match=r"file_name none\.jpg is no image of the data \(1 of 2 are none\)"):
        numbers(named, other)
    with pytest.raises(ValueError, match="image_id 3, which has no file_name beside it, is no image of the data"):
        numbers(named, {"image_id": 3})


def test_names_that_agree_let_others_be() -> None:
    assert numbers({"image_id": 1, "file_name": FILES[0]}, {"image_id": 3, "file_name": "none.jpg"}) == [1, 3]


def test_textual_ids_are_found() -> None:
    data = CocoData(DATA.images, [], DATA.categories, Path(), {}, original_images={1: "ab", 2: "cd", 3: "ef"})
    assert numbers({"image_id": "cd"}, {"image_id": "ab"}, data=data) == [2, 1]


@pytest.mark.parametrize(
    ("ids", "counting", "expected"),
    [
        ([3, 5], "check", [3, 5]),
        (["3", 5.0], "id", [3, 5]),
        (["cat", "Dog"], "check", [3, 5]),
        (["cat", "Dog"], "name", [3, 5]),
        ([0, 1], "order", [3, 5]),
        ([0, 1, 2], "order", [0, 3, 5]),
    ],
)
def test_categories_are_counted_as_is_said(ids: list[Any], counting: Any, expected: list[int]) -> None:
    found = categories([{"category_id": value} for value in ids], DATA, counting, Tally())
    assert [found[str(value)] for value in ids] == expected


def test_a_name_beside_the_id_counts_where_that_is_wished() -> None:
    entries = [{"category_id": 17, "category_name": "dog"}, {"category_id": 16, "category_name": "cat"}]
    assert categories(entries, DATA, "name", Tally()) == {"17": 5, "16": 3}


@pytest.mark.parametrize("counting", ["check", "id", "name"])
def test_an_unknown_category_is_an_error(counting: Any) -> None:
    expected = r"category ids that the data does not have: 4; is it of these annotations\? The data has 0 animal, 3 Cat"
    with pytest.raises(ValueError, match=expected):
        categories([{"category_id": 4}], DATA, counting, Tally())


def test_places_beyond_the_list_are_an_error() -> None:
    with pytest.raises(ValueError, match="category ids are not places in a list of 3: 3; expected 0 to 2"):
        categories([{"category_id": 3}], DATA, "order", Tally())
