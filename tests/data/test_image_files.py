"""Names in annotation files, and the files that they mean."""

from pathlib import Path

import pytest

from refinebox.data.image_files import found


def make(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("a/b.jpg", "a/b.jpg"),
        ("a\\b.jpg", "a/b.jpg"),
        ("images\\a\\b.jpg", "a/b.jpg"),
        ("images/a/b.jpg", "a/b.jpg"),
        ("../../home/somebody/a/b.jpg", "a/b.jpg"),
        ("C:\\data\\a\\b.jpg", "a/b.jpg"),
        ("b.jpg", "a/b.jpg"),
        ("B.JPG", "a/b.jpg"),
        ("a/B.jpg", "a/b.jpg"),
        ("b", "a/b.jpg"),
        ("two words.png", "two words.png"),
        ("two%20words.png", "two words.png"),
        ("cafe\u0301.jpg", "caf\u00e9.jpg"),
        ("7", "000007.jpg"),
        ("000007", "000007.jpg"),
    ],
)
def test_a_name_means_the_file_that_it_can_only_mean(name: str, file: str, tmp_path: Path) -> None:
    make(tmp_path, "a/b.jpg", "two words.png", "caf\u00e9.jpg", "000007.jpg", "deep/er/c.png")
    assert found([name], tmp_path) == {name: file}


@pytest.mark.parametrize("name", ["c.jpg", "", "a", "b.png", "x" * 5000, "a\x00b.jpg", "8"])
def test_other_names_mean_nothing(name: str, tmp_path: Path) -> None:
    make(tmp_path, "a/b.jpg", "000007.jpg")
    assert found([name], tmp_path) == {}


def test_the_longer_path_decides_between_equal_names(tmp_path: Path) -> None:
    make(tmp_path, "one/x.jpg", "two/x.jpg")
    assert found(["elsewhere/two/x.jpg"], tmp_path) == {"elsewhere/two/x.jpg": "two/x.jpg"}
    assert found(["x.jpg"], tmp_path) == {}


def test_no_file_is_taken_twice(tmp_path: Path) -> None:
    make(tmp_path, "one/x.jpg")
    assert found(["one/x.jpg", "two/x.jpg"], tmp_path) == {"one/x.jpg": "one/x.jpg"}
    assert found(["three/x.jpg", "two/x.jpg"], tmp_path) == {}


def test_a_missing_folder_holds_nothing(tmp_path: Path) -> None:
    assert found(["x.jpg"], tmp_path / "none") == {}
