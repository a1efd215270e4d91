"""Training from the cache: the same as without, run once, and nothing that belongs to another."""

import json
import math
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from results_files import detections
from torch import Tensor

from refinebox.data import results_file
from refinebox.data.annotations import CocoData
from refinebox.data.tally import Tally
from refinebox.detection.detector import Detector
from refinebox.detection.given import Given
from refinebox.detection.zoo import describe
from refinebox.evaluation.link import Link
from refinebox.files import checkpoint
from refinebox.training import cache, lessons, train
from refinebox.training.cache import Cache, Piece
from refinebox.training.observation import Observation
from refinebox.training.settings import Settings

CPU = torch.device("cpu")
SETTINGS = Settings(epochs=4, batch_size=3, learning_rate=1e-3, jitter=1, augmentation="flip", variants=2)


def opened(
    folder: Path, detector: Detector, training: CocoData, settings: Settings = SETTINGS, limit: float = math.inf
) -> Cache:
    dataset = lessons.training_dataset(detector, training, Link.between(detector, training), settings)
    return Cache(folder, limit, detector, dataset)


def piece(records: Cache, indices: list[int]) -> Piece:
    return records.__getitems__(indices).to(CPU)


def files(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.safetensors"))


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch, detector: Detector) -> dict[str, int]:
    """How often the whole detector and its backbone alone were run."""
    counts = {"detect": 0, "extract": 0}
    for name in counts:
        real: Callable[..., Any] = getattr(detector, name)

        def counted(images: Tensor, sizes: Tensor, name: str = name, real: Callable[..., Any] = real) -> Any:
            counts[name] += 1
            return real(images, sizes)

        monkeypatch.setattr(detector, name, counted)
    return counts


def test_what_was_seen_once_is_not_computed_again(
    detector: Detector, training: CocoData, tmp_path: Path, calls: dict[str, int]
) -> None:
    records = opened(tmp_path, detector, training)
    first = records.observe(detector, piece(records, [0, 1, 2]))
    assert calls == {"detect": 1, "extract": 0}
    again = records.__getitems__([0, 1, 2])
    assert again.batch is None
    assert again.objects == sum(len(boxes) for boxes in records.dataset.boxes[:3])
    assert_same(first, records.observe(detector, again))
    records.observe(detector, piece(records, [2, 0]))
    assert calls == {"detect": 1, "extract": 0}
    records.observe(detector, piece(records, [2, 3]))
    assert calls == {"detect": 2, "extract": 0}
    assert len(files(tmp_path)) == 4


def assert_same(one: Observation, two: Observation) -> None:
    for name in ("boxes", "wanted", "image", "sizes"):
        assert torch.equal(getattr(one, name), getattr(two, name)), name
    assert one.image_ids == two.image_ids
    assert all(map(torch.equal, one.features, two.features))


def test_boxes_are_kept_where_there_is_no_room_for_cells(
    detector: Detector, training: CocoData, tmp_path: Path, calls: dict[str, int]
) -> None:
    records = opened(tmp_path, detector, training, limit=0)
    first = records.observe(detector, piece(records, [0, 1, 2]))
    assert_same(first, records.observe(detector, piece(records, [0, 1, 2])))
    assert calls == {"detect": 1, "extract": 1}
    assert sum(path.stat().st_size for path in files(tmp_path)) < 3000


def test_the_limit_holds(detector: Detector, training: CocoData, tmp_path: Path) -> None:
    whole = opened(tmp_path / "whole", detector, training)
    seen = whole.observe(detector, piece(whole, [0, 1, 2]))
    sizes = [whole._path(index).stat().st_size for index in (0, 1, 2)]
    part = opened(tmp_path / "part", detector, training, limit=sizes[0] + sizes[1] + 2000)
    mixed = part.observe(detector, piece(part, [0, 1, 2]))
    assert [bool(record and record.kept) for record in part.__getitems__([0, 1, 2]).records] == [True, True, False]
    assert_same(mixed, part.observe(detector, piece(part, [0, 1, 2])))
    expected = "the cache is full: 1 images need the backbone in every epoch; a larger --cache-size helps"
    assert part.shortage() == expected
    assert part.shortage() == whole.shortage() == ""
    for ours, all_known in zip(mixed.features, seen.features, strict=True):
        assert torch.equal(ours[:2], all_known[:2])
        assert not torch.equal(ours[2], all_known[2])  # the whole map, not rounded
    again = opened(tmp_path / "part", detector, training, limit=sizes[0] + sizes[1] + 2000)
    assert again.room == part.room


def test_others_find_nothing(make_detector: Callable[..., Detector], training: CocoData, tmp_path: Path) -> None:
    detector = make_detector()
    records = opened(tmp_path, detector, training)
    records.observe(detector, piece(records, [0]))
    assert opened(tmp_path, detector, training).__getitems__([0]).records != [None]
    assert opened(tmp_path, detector, training, replace(SETTINGS, seed=1)).__getitems__([0]).records != [None]

    resized = make_detector()
    resized.resize(96, None)
    moved = [{**entry, "bbox": [value + 1 for value in entry["bbox"]]} for entry in training.annotations]
    renamed = [{**entry, "file_name": training.images[1]["file_name"]} for entry in training.images]
    reduced = make_detector()
    reduced.precision = "bfloat16"
    for other in (
        opened(tmp_path, make_detector(1), training),
        opened(tmp_path, resized, training),
        opened(tmp_path, reduced, training),
        opened(tmp_path, detector, replace(training, annotations=moved)),
        opened(tmp_path, detector, replace(training, images=renamed)),
        opened(tmp_path, detector, training, replace(SETTINGS, augmentation="none")),
        opened(tmp_path, detector, training, replace(SETTINGS, variants=0, seed=1)),
    ):
        assert other.__getitems__([0]).records == [None]
    records.dataset.variant = 1
    assert records.__getitems__([0]).records == [None]


def test_a_damaged_record_is_made_again(detector: Detector, training: CocoData, tmp_path: Path) -> None:
    records = opened(tmp_path, detector, training)
    seen = records.observe(detector, piece(records, [0, 1]))
    path = records._path(1)
    path.write_bytes(path.read_bytes()[:-10])
    assert_same(seen, records.observe(detector, piece(records, [0, 1])))
    assert records.__getitems__([1]).batch is None


def test_what_killed_writers_left_is_removed(detector: Detector, training: CocoData, tmp_path: Path) -> None:
    old, new = tmp_path / "a/0/.x.safetensors.77", tmp_path / "a/0/.y.safetensors.78"
    old.parent.mkdir(parents=True)
    for path in (old, new):
        path.write_text("half")
    os.utime(old, (0, 0))
    opened(tmp_path, detector, training)
    assert not old.exists()
    assert new.exists()


def test_unreadable_images_are_left_out(
    detector: Detector, training: CocoData, spoiled_folder: Path, tmp_path: Path
) -> None:
    """Also of a batch whose other images have records, and where the file itself is gone."""
    records = opened(tmp_path, detector, replace(training, folder=spoiled_folder / "train"))
    records.dataset.strict = False
    everything = list(range(len(training.images)))
    for _ in range(2):
        found = piece(records, everything)
        seen = records.observe(detector, found)
        assert len(found.unreadable) == 2
        assert seen.image_ids == found.image_ids == [1, 2, 4, 5]
        assert len(seen.features[0]) == len(found.records) == 4


def test_a_disk_that_is_full_does_not_stop_the_training(
    detector: Detector, training: CocoData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    records = opened(tmp_path, detector, training)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(cache.checkpoint, "write_bytes", full)
    seen = records.observe(detector, piece(records, [0, 1]))
    expected = (
        "the cache cannot be written ([Errno 28] No space left on device); what is missing is computed anew in every"
    )
    assert records.shortage().startswith(expected)
    plain = cache.observe(detector, records.dataset.__getitems__([0, 1]).to(CPU))
    assert_same(seen, plain)


def trained(
    detector: Detector, training: CocoData, validation: CocoData, output: Path, settings: Settings, **options: Any
) -> list[dict[str, Any]]:
    train.train(detector, training, validation, output, settings, **options)
    return [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]


def test_training_from_the_cache_is_the_training_without(
    detector: Detector, training: CocoData, validation: CocoData, tmp_path: Path, calls: dict[str, int]
) -> None:
    plain = trained(detector, training, validation, tmp_path / "plain", SETTINGS)
    calls["detect"] = 0
    cached = trained(detector, training, validation, tmp_path / "cached", SETTINGS, cache=tmp_path / "cache")
    evaluations = 4 * 2  # four epochs, four images in batches of three
    assert calls["detect"] == evaluations + 2 * 2  # two variants, six images in batches of three
    assert len(files(tmp_path / "cache")) == 12
    for one, two in zip(plain, cached, strict=True):
        assert one["loss"] == pytest.approx(two["loss"], rel=0.05)  # boxes stray far in the first steps
    again = trained(detector, training, validation, tmp_path / "again", SETTINGS, cache=tmp_path / "cache")
    assert calls["detect"] == 2 * evaluations + 2 * 2
    assert [{**line, "seconds": 0} for line in again] == [{**line, "seconds": 0} for line in cached]


@pytest.mark.parametrize("limit", [math.inf, 100_000])
def test_a_cached_run_that_was_stopped_continues_bit_for_bit(
    detector: Detector,
    training: CocoData,
    validation: CocoData,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    limit: float,
) -> None:
    """Stopped after some records of a batch are written; then read back, and the rest computed."""
    options = {"cache_limit": limit}
    trained(detector, training, validation, tmp_path / "whole", SETTINGS, cache=tmp_path / "a", **options)
    real = checkpoint.write_bytes
    written = 0

    def killed(path: Path, data: bytes) -> None:
        nonlocal written
        written += path.is_relative_to(tmp_path / "b")
        if written == 11:
            raise KeyboardInterrupt
        real(path, data)

    monkeypatch.setattr(checkpoint, "write_bytes", killed)
    with pytest.raises(KeyboardInterrupt):
        trained(detector, training, validation, tmp_path / "parts", SETTINGS, cache=tmp_path / "b", **options)
    monkeypatch.setattr(checkpoint, "write_bytes", real)
    trained(
        detector, training, validation, tmp_path / "parts", SETTINGS, cache=tmp_path / "b", continued=True, **options
    )
    whole, parts = (checkpoint.read(tmp_path / run / "last/state.safetensors")[0] for run in ("whole", "parts"))
    assert whole.keys() == parts.keys()
    assert all(torch.equal(tensor, parts[name]) for name, tensor in whole.items())


def test_a_run_does_not_go_on_without_its_cache(
    detector: Detector, training: CocoData, validation: CocoData, tmp_path: Path
) -> None:
    trained(detector, training, validation, tmp_path / "run", replace(SETTINGS, epochs=1), cache=tmp_path / "cache")
    with pytest.raises(ValueError, match="started with other settings: cached was True, now False; use the old ones"):
        trained(detector, training, validation, tmp_path / "run", replace(SETTINGS, epochs=1), continued=True)


def test_workers_read_records(detector: Detector, training: CocoData, validation: CocoData, tmp_path: Path) -> None:
    options: dict[str, Any] = {"cache": tmp_path / "cache"}
    settings = replace(SETTINGS, epochs=3)
    alone = trained(detector, training, validation, tmp_path / "alone", settings, **options)
    several = trained(detector, training, validation, tmp_path / "several", settings, workers=2, **options)
    assert [{**line, "seconds": 0} for line in alone] == [{**line, "seconds": 0} for line in several]


def test_another_results_file_finds_nothing(detector: Detector, training: CocoData, tmp_path: Path) -> None:
    given = Given(detector, describe(detector))
    rows = results_file.rows(detections(training), training, "check", Tally())
    other = rows.copy()
    other[:, 5] *= 0.5
    apart = np.concatenate([rows, rows[rows[:, 0] == training.images[1]["id"]] + [0, 1, 1, 0, 0, 0, 0]])
    records = opened(tmp_path, given, replace(training, given=rows))
    records.observe(given, piece(records, [0, 1]))
    assert opened(tmp_path, given, replace(training, given=rows)).__getitems__([0, 1]).batch is None
    assert opened(tmp_path, given, replace(training, given=other)).__getitems__([0]).records == [None]
    found = opened(tmp_path, given, replace(training, given=apart)).__getitems__([0, 1]).records
    assert [record is None for record in found] == [False, True]  # only what another image has changed is missing
