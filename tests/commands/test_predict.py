"""Many images by the command line: Parquet files, in shards, gone on with, and a line for what does not fit."""

import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest
from invocation import Words, content, done, run, the_line

from refinebox.detection.detector import Detector
from refinebox.detection.zoo import describe
from refinebox.files import checkpoint
from refinebox.report.batch import Refine

dataset = pytest.importorskip("pyarrow.dataset", reason="pyarrow is not installed; pip install -e '.[test]'")


@pytest.fixture
def detector_file(detector: Detector, tmp_path: Path) -> Path:
    path = tmp_path / "detector.safetensors"
    checkpoint.write(path, detector.tensors(), {"kind": "detector", "detector": describe(detector)})
    return path


@pytest.fixture
def words(detector_file: Path, shapes_folder: Path, tmp_path: Path) -> Words:
    """A command for the six training images."""
    folders: Words = [shapes_folder / "train", "--output", tmp_path / "out"]
    return ["predict", detector_file, *folders, "--device", "cpu", "--format", "parquet"]


def rows(folder: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = dataset.dataset(folder).to_table().to_pylist()
    return sorted(found, key=lambda row: row["image_id"])


def test_parquet_holds_what_a_loop_finds(
    words: Words, detector_file: Path, shapes_folder: Path, tmp_path: Path
) -> None:
    shown = [done(*words, "--shard", f"{number}/2", "--part-size", "2") for number in (1, 2)]
    parts = [len(list((tmp_path / "out").glob(f"part-0000{number}-of-00002-*.parquet"))) for number in (1, 2)]
    for number, line in enumerate(shown):
        images = int(line.split()[0])
        assert parts[number] == (images + 1) // 2 > 0
        assert line == f"{images} images in {parts[number]} parts: {tmp_path / 'out'}, shard {number + 1}/2\n"
    paths = sorted((shapes_folder / "train").iterdir())
    expected = Refine(detector_file, device="cpu")({"path": [str(path) for path in paths]})
    found = rows(tmp_path / "out")
    assert [row["image_id"] for row in found] == [path.name for path in paths]
    for name in ("boxes", "scores", "labels", "moved", "width", "height", "error"):
        assert [row[name] for row in found] == expected[name]
    assert min(score for row in found for score in row["scores"]) >= 0.05


def test_a_run_is_gone_on_with(words: Words, shapes_folder: Path, tmp_path: Path) -> None:
    done(*words, "--part-size", "4")
    whole = rows(tmp_path / "out")
    for part in sorted((tmp_path / "out").iterdir())[1:]:
        part.unlink()
    left = len(rows(tmp_path / "out"))
    shown = done(*words, "--part-size", "4", "--skip-done")
    assert shown == f"{6 - left} images in 1 parts: {tmp_path / 'out'}, shard 1/1; {left} were done\n"
    assert rows(tmp_path / "out") == whole
    shown = done(*words, "--skip-done")
    assert shown == f"0 images in 0 parts: {tmp_path / 'out'}, shard 1/1; 6 were done\n"


def test_an_image_that_cannot_be_read_is_told_and_kept(words: Words, tmp_path: Path, spoiled_folder: Path) -> None:
    result = run(*words[:2], spoiled_folder / "train", *words[3:])
    assert result.exit_code == 0
    assert result.stdout.startswith("5 images in 1 parts: ")
    [line] = result.stderr.splitlines()
    assert line.startswith(f"skipped: {spoiled_folder / 'train/000002.jpg'} is not a readable image: ")
    assert [row["error"] for row in rows(tmp_path / "out") if row["error"]] == [line.removeprefix("skipped: ")]


def test_low_scores_are_written_where_that_is_asked(words: Words, detector_file: Path, tmp_path: Path) -> None:
    done(*words, "--min-score", "0")
    assert {len(row["scores"]) for row in rows(tmp_path / "out")} == {12 * 6}
    coco: Words = ["--output", tmp_path / "coco", "--min-score"]
    everything = {}
    for least in ("0", "0.5"):
        done("predict", detector_file, words[2], *coco, least)
        everything[least] = json.loads((tmp_path / "coco/results.json").read_text())
    assert everything["0.5"] == [row for row in everything["0"] if row["score"] >= 0.5]
    assert len(everything["0"]) == 6 * 12 * 6 > len(everything["0.5"])


BAD = {
    "no shard": ("--shard 3/2", r"refinebox: there is no shard 3/2; expected 1/2 to 2/2"),
    "a shard of zero": ("--shard 0/2", r"refinebox: there is no shard 0/2; expected 1/2 to 2/2"),
    "a shard of words": ("--shard two", r"refinebox: the shard 'two' is no i/n; expected such as 2/8, the second of"),
    "parts that are there": (
        "",
        r"\.parquet holds images of this shard; pass --skip-done to go on, or another --output",
    ),
    "another floor": (
        "--skip-done --min-score 0.5",
        r"of another run: its min_score is 0\.05, here it is 0\.5; name an",
    ),
    "another size": ("--skip-done --short-side 96", r"of another run: its input short_side is 64, here it is 96; name"),
    "a file": ("--output {file}", r"file is a file; name a folder for the parts"),
    "no parquet": (
        "--format coco --skip-done",
        r"--skip-done and --part-size are for Parquet files; pass --format parq",
    ),
    "no parquet, shard": (
        "--format coco --shard 1/2",
        r"refinebox: --shard, --skip-done and --part-size are for Parquet",
    ),
    "pictures of parts": ("--compare", r"--compare makes pictures, and Parquet files have none; leave out one of them"),
    "no images": ("{file}.jpg", r"no file or folder at .*file\.jpg; check the path"),
}


@pytest.mark.parametrize(("more", "expected"), BAD.values(), ids=BAD)
def test_what_does_not_fit_is_one_line(more: str, expected: str, words: Words, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("kept")
    done(*words)
    old = content(tmp_path)
    line = the_line(run(*words, *more.format(file=tmp_path / "file").split()))
    assert re.search(expected, line), line
    assert content(tmp_path) == old


def test_another_model_is_another_run(words: Words, detector: Detector, detector_file: Path, tmp_path: Path) -> None:
    done(*words)
    changed = {**detector.tensors(), "class_embed.bias": detector.tensors()["class_embed.bias"] + 1}
    checkpoint.write(detector_file, changed, {"kind": "detector", "detector": describe(detector)})
    line = the_line(run(*words, "--skip-done"))
    assert ".parquet is of another run: its model is " in line
    assert line.endswith(f", here it is {checkpoint.file_sha256(detector_file)}; name another --output")


def test_without_pyarrow_its_extra_is_named(words: Words, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    line = the_line(run(*words))
    assert line.startswith("refinebox: pyarrow is needed for Parquet and cannot be imported (")
    assert line.endswith("); run: pip install 'refinebox[parquet]'")
    assert not (tmp_path / "out").exists()
