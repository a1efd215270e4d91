"""What cannot be written is known before the work."""

import os
from pathlib import Path

import pytest

from refinebox.files.place import check_apart, check_file, check_folder


def test_what_is_there_or_can_be_made_is_fine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "old.json").write_text("{}")
    monkeypatch.chdir(tmp_path)
    for path in (tmp_path / "old.json", tmp_path / "a/b/new.json", Path("new.json"), Path("a/new.json")):
        check_file(path)
        check_folder(path.parent)
    assert [path.name for path in tmp_path.iterdir()] == ["old.json"]


def test_a_folder_is_no_file_and_a_file_no_folder(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("kept")
    with pytest.raises(IsADirectoryError, match=r" is a folder; name a \.onnx file to write$"):
        check_file(tmp_path, ".onnx file")
    with pytest.raises(NotADirectoryError, match=r"file is a file; name a folder for the run$"):
        check_folder(file, " for the run")
    for path in (file / "a.json", file / "a/b/c.json"):
        with pytest.raises(NotADirectoryError, match="file is a file"):
            check_file(path)
    with pytest.raises(NotADirectoryError, match=r"file is a file, so .*a.b cannot be a folder; name another$"):
        check_folder(file / "a" / "b")


def test_a_folder_that_may_not_be_written_to_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda path, _: Path(path) != tmp_path)
    with pytest.raises(PermissionError, match=r" may not be written to; name another folder$"):
        check_file(tmp_path / "new" / "a.json")
    check_folder(tmp_path.parent)


def test_what_is_read_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "folder" / "a.json"
    file.parent.mkdir()
    file.write_text("kept")
    monkeypatch.chdir(tmp_path)
    for path in (file, Path("folder/../folder/a.json")):
        for read in (file, file.parent):
            with pytest.raises(FileExistsError, match=r"\.json is a file that is read, and would be lost; na"):
                check_apart([tmp_path / "new.json", path], [None, tmp_path / "none", read])
    check_apart([file, tmp_path / "new.json"], [None, tmp_path / "new.json", tmp_path])
