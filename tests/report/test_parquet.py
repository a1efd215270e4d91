"""Detections in Parquet: nothing lost, nothing twice, nothing mixed up, whatever ends a run."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from refinebox.detection.detector import Detector
from refinebox.files import checkpoint
from refinebox.refinement.refined_detector import RefinedDetector
from refinebox.refinement.refiner import Refiner
from refinebox.report.batch import COLUMNS
from refinebox.report.parquet import Parts, Written, check, predict_parts, run_of
from refinebox.report.returned import row_of
from refinebox.report.shard import Shard, named

arrow = pytest.importorskip("pyarrow", reason="pyarrow is not installed; pip install -e '.[test]'")
dataset = pytest.importorskip("pyarrow.dataset")
parquet = pytest.importorskip("pyarrow.parquet")

RUN = {"model": "0123", "min_score": 0.0}
Rows = list[dict[str, Any]]


@pytest.fixture
def model(detector: Detector) -> RefinedDetector:
    torch.manual_seed(3)
    return RefinedDetector(detector, Refiner(detector.channels, detector.strides))


@pytest.fixture
def images(shapes_folder: Path, tmp_path: Path) -> dict[str, Path]:
    """Ten images, of which one cannot be read, in two folders of a folder."""
    folder = tmp_path / "images"
    shutil.copytree(shapes_folder / "train", folder / "a")
    shutil.copytree(shapes_folder / "val", folder / "b")
    (folder / "a/000003.jpg").write_text("no image")
    return named([folder], recursive=True)


@pytest.fixture
def expected(model: RefinedDetector, images: dict[str, Path]) -> Rows:
    return [row_of(model, name, path, 0.0) for name, path in sorted(images.items())]


def write(
    model: Detector, images: dict[str, Path], folder: Path, shard: str = "1/1", size: int = 4, **more: Any
) -> Written:
    return predict_parts(model, images, Parts(folder, RUN), shard=Shard.of(shard), least=0.0, size=size, **more)


def rows(folder: Path) -> Rows:
    """All rows in the folder, as any reader of Parquet sees them, by name."""
    found: Rows = dataset.dataset(folder).to_table().to_pylist()
    return sorted(found, key=lambda row: row["image_id"])


def test_parts_hold_the_rows(model: RefinedDetector, images: dict[str, Path], expected: Rows, tmp_path: Path) -> None:
    written = write(model, images, tmp_path / "out")
    assert rows(tmp_path / "out") == expected
    assert [parquet.read_metadata(path).num_rows for path in written.parts] == [4, 4, 2]
    assert sorted(written.parts) == sorted((tmp_path / "out").iterdir())
    assert (written.done, written.images) == (0, 10)
    assert [reason.partition(" is ")[0] for reason in written.unreadable] == [str(images["a/000003.jpg"])]
    assert [row["image_id"] for row in expected if row["error"]] == ["a/000003.jpg"]
    assert max(far for row in expected for far in row["moved"]) > 0
    schema = parquet.read_schema(written.parts[0])
    assert schema.names == list(COLUMNS)
    assert json.loads(schema.metadata[b"refinebox"])["run"] == RUN


def test_shards_make_the_whole(model: RefinedDetector, images: dict[str, Path], expected: Rows, tmp_path: Path) -> None:
    written = [write(model, images, tmp_path / "out", f"{number}/3") for number in (3, 1, 2)]
    assert sum(shard.images for shard in written) == 10
    assert all(shard.images < 10 for shard in written)
    assert rows(tmp_path / "out") == expected


@pytest.mark.parametrize("parts_before", [0, 1, 2])
def test_a_run_goes_on_where_it_was_ended(
    parts_before: int,
    model: RefinedDetector,
    images: dict[str, Path],
    expected: Rows,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The end comes while a part is half written."""
    replace, calls = os.replace, []

    def end(*arguments: Any, **options: Any) -> None:
        calls.append(arguments)
        if len(calls) > parts_before:
            raise KeyboardInterrupt
        replace(*arguments, **options)

    monkeypatch.setattr(os, "replace", end)
    with pytest.raises(KeyboardInterrupt):
        write(model, images, tmp_path / "out")
    monkeypatch.undo()
    assert len(rows(tmp_path / "out")) == 4 * parts_before if parts_before else not list((tmp_path / "out").iterdir())
    written = write(model, images, tmp_path / "out", skip_done=True)
    assert (written.done, written.images) == (4 * parts_before, 10 - 4 * parts_before)
    assert rows(tmp_path / "out") == expected
    again = write(model, images, tmp_path / "out", skip_done=True)
    assert (again.done, again.images, again.parts, again.unreadable) == (10, 0, [], [])


def test_it_goes_on_in_other_shards_and_with_more_images(
    model: RefinedDetector, images: dict[str, Path], expected: Rows, tmp_path: Path
) -> None:
    some = dict(list(images.items())[::2])
    write(model, some, tmp_path / "out", "1/2")
    for shard in ("1/3", "2/3", "3/3"):
        write(model, images, tmp_path / "out", shard, skip_done=True)
    assert rows(tmp_path / "out") == expected


def test_what_a_killed_process_left_beside_a_part_goes(
    model: RefinedDetector, images: dict[str, Path], tmp_path: Path
) -> None:
    written = write(model, images, tmp_path / "out")
    left = written.parts[0].rename(written.parts[0].with_name(f".{written.parts[0].name}.4711"))
    assert sum(parquet.read_metadata(path).num_rows for path in (tmp_path / "out").glob("part-*")) == 6
    write(model, images, tmp_path / "out", skip_done=True)
    assert not left.exists()
    assert len(rows(tmp_path / "out")) == 10


def test_a_shard_is_not_done_twice_unasked(model: RefinedDetector, images: dict[str, Path], tmp_path: Path) -> None:
    write(model, images, tmp_path / "out", "1/2")
    before = {path: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    for shard in ("1/2", "1/1", "2/3"):  # which share images with what is there
        with pytest.raises(
            FileExistsError, match=r"-of-00002-\w+\.parquet holds images of this shard; pass --skip-done"
        ):
            write(model, images, tmp_path / "out", shard)
    assert {path: path.read_bytes() for path in (tmp_path / "out").iterdir()} == before


@pytest.mark.parametrize("skip_done", [False, True])
def test_parts_of_another_run_are_refused(
    skip_done: bool, model: RefinedDetector, images: dict[str, Path], tmp_path: Path
) -> None:
    write(model, images, tmp_path / "out", "1/2")
    for run, said in (
        ({**RUN, "model": "4567"}, "its model is 0123, here it is 4567"),
        ({**RUN, "min_score": 0.5}, "its min_score is 0.0, here it is 0.5"),
        ({**RUN, "ema": True}, "its ema is None, here it is True"),
    ):
        with pytest.raises(ValueError, match=rf"is of another run: {said}; name another --output$"):
            predict_parts(
                model, images, Parts(tmp_path / "out", run), shard=Shard(2, 2), skip_done=skip_done, least=0.0
            )


def test_other_files_are_refused(model: RefinedDetector, images: dict[str, Path], tmp_path: Path) -> None:
    parquet.write_table(arrow.table({"image_id": ["a"]}), tmp_path / "theirs.parquet")
    with pytest.raises(ValueError, match=r"theirs\.parquet is not from refinebox predict; name another --output$"):
        write(model, images, tmp_path, skip_done=True)
    (tmp_path / "theirs.parquet").write_bytes((tmp_path / "theirs.parquet").read_bytes()[:-9])
    with pytest.raises(
        ValueError, match=r"theirs\.parquet is damaged or no Parquet file; remove it, and its images are"
    ):
        write(model, images, tmp_path, skip_done=True)


def test_an_empty_shard_writes_nothing(model: RefinedDetector, images: dict[str, Path], tmp_path: Path) -> None:
    empty = next(number for number in range(1, 100) if not any(map(Shard(number, 99).holds, images)))
    written = write(model, images, tmp_path / "out", f"{empty}/99")
    assert written == Written()
    assert not (tmp_path / "out").exists()


def test_a_run_is_known_by_what_it_depends_on(make_detector: Callable[..., Detector], tmp_path: Path) -> None:
    (tmp_path / "model").write_bytes(b"model")
    (tmp_path / "boxes").write_bytes(b"boxes")
    one = run_of(make_detector(), tmp_path / "model", None, min_score=0.1)
    assert one["model"] == checkpoint.file_sha256(tmp_path / "model")
    assert (one["min_score"], one["results"], one["input short_side"]) == (0.1, None, 64)
    assert run_of(make_detector(), tmp_path / "boxes", None, min_score=0.1) != one
    assert run_of(make_detector(), tmp_path / "model", tmp_path / "boxes", min_score=0.1) != one
    assert run_of(make_detector(short_side=96), tmp_path / "model", None, min_score=0.1) != one
    renamed = make_detector()  # as another prompt does
    renamed.category_names = {**renamed.category_names, 1: "cat"}
    assert run_of(renamed, tmp_path / "model", None, min_score=0.1) != one
    detectors = [make_detector(seed) for seed in (0, 1)]
    assert run_of(detectors[0], None, None)["model"] == detectors[0].weights_sha256()
    assert run_of(detectors[0], None, None) != run_of(detectors[1], None, None)


@pytest.mark.parametrize("name", ["s3://bucket/out", "gs://bucket"])
def test_object_storage_is_no_folder(name: str) -> None:
    with pytest.raises(
        ValueError, match=r"^\w\w:/bucket\S* is no folder; name one and copy it there afterwards, or use"
    ):
        check(Path(name))
