"""Shares of many images, by name alone."""

import os
import sys
import unicodedata
from pathlib import Path

import pytest

from refinebox import distributed
from refinebox.report.shard import Shard, named


def test_every_image_is_in_one_shard() -> None:
    names = [f"folder/{number:06}.jpg" for number in range(1000)]
    shards = [Shard(number, 3) for number in (1, 2, 3)]
    shares = [[name for name in names if shard.holds(name)] for shard in shards]
    assert sorted(name for share in shares for name in share) == names
    assert all(280 < len(share) < 390 for share in shares)
    assert all(map(Shard().holds, names))


def test_shards_stay_what_they_are() -> None:
    """Another version, another machine: the same share, by the sixteenth digit that sha256sum prints."""
    assert [name for name in "abcdefgh" if Shard(1, 2).holds(name)] == ["a", "b", "c", "e", "f"]
    accented = "caf\u00e9.jpg"
    decomposed = unicodedata.normalize("NFD", accented)
    assert decomposed != accented
    assert all(Shard(number, 5).holds(accented) == Shard(number, 5).holds(decomposed) for number in range(1, 6))


def test_a_shard_is_read() -> None:
    assert Shard.of("2/8") == Shard(2, 8)
    assert str(Shard(2, 8)) == "2/8"


@pytest.mark.parametrize("text", ["0/4", "5/4", "1/0", "2", "a/b", "1/2/3", "-1/4", ""])
def test_other_shards_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"^there is no shard \d/4; expected 1/4 to 4/4$|^the shard '.*' is no i/n; "):
        Shard.of(text)


def test_processes_share_a_shard(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Shard(2, 3).of_process() == Shard(2, 3)
    monkeypatch.setattr(distributed, "processes", lambda: 2)
    names = [str(number) for number in range(200)]
    shares = []
    for number in (1, 2, 3):
        for rank in (0, 1):
            monkeypatch.setattr(distributed, "rank", lambda rank=rank: rank)
            shares.append([name for name in names if Shard(number, 3).of_process().holds(name)])
    assert sorted(name for share in shares for name in share) == sorted(names)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for name in ("a.jpg", "deep/b.png", "deep/notes.txt", "other/b.png"):
        (tmp_path / "photos" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "photos" / name).touch()
    return tmp_path / "photos"


def test_names_do_not_say_where_the_folder_is(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = ["a.jpg", "deep/b.png", "other/b.png"]
    assert list(named([photos], recursive=True)) == wanted
    monkeypatch.chdir(photos)
    found = named([Path()], recursive=True)
    assert list(found) == wanted
    assert all(path.is_file() for path in found.values())
    assert list(named([Path("deep/b.png"), photos])) == ["deep/b.png", "a.jpg"]


def test_two_images_of_one_name_are_refused(photos: Path) -> None:
    with pytest.raises(ValueError, match=r"would both be b\.png in the results; name the folder of both, with --rec"):
        named([photos / "deep", photos / "other"])


@pytest.mark.skipif(sys.platform != "linux", reason="names of other systems are text")
def test_a_name_that_is_no_text_is_written_as_some(tmp_path: Path) -> None:
    path = os.fsencode(tmp_path) + b"/caf\xe9.jpg"
    with open(path, "wb"):
        pass
    [(name, file)] = named([tmp_path]).items()
    assert name == "caf\\xe9.jpg"
    assert os.fsencode(file) == path
