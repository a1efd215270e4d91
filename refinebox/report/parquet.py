"""Detections of many images as Parquet parts: written whole or not at all, and marked with the run that made them."""

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from io import BytesIO
from itertools import islice
from pathlib import Path
from typing import Any

from refinebox import __version__
from refinebox.data.fields import brief
from refinebox.data.proposals import lacks
from refinebox.detection.detector import Detector
from refinebox.detection.extras import library
from refinebox.files import checkpoint, place
from refinebox.progress import track
from refinebox.report.columns import columns_of, table
from refinebox.report.returned import row_of
from refinebox.report.shard import Shard, plain

METADATA_KEY = "refinebox"  # our JSON in a part's schema
KIND = "detections"
Row = dict[str, Any]


@dataclass(frozen=True)
class Parts:
    """The parts of one run in a folder, and a place for more.

    Attributes:
        folder: where they lie; it need not be there yet.
        run: all that rows depend on; parts of which anything else is true are of another run.
    """

    folder: Path
    run: Mapping[str, Any]

    def there(self) -> dict[Path, Shard]:
        """The parts in the folder and the shards that they are of.

        Raises:
            ValueError: a file is of another run, damaged, or no part at all; the message names it.
        """
        return {path: Shard.of(self._metadata(path)["shard"]) for path in sorted(self.folder.glob("*.parquet"))}

    def done(self, parts: Iterable[Path]) -> set[str]:
        """The names of the images in the parts, as :func:`plain` writes them."""
        parquet = _parquet()
        tables = (parquet.read_table(path, columns=["image_id"], partitioning=None) for path in parts)
        return {plain(name) for found in tables for name in found["image_id"].to_pylist()}

    def write(self, rows: list[Row], shard: Shard) -> Path:
        """Writes a part, which is called after its shard and its images: the same images give the same name."""
        names = "\n".join(row["image_id"] for row in rows)
        ending = hashlib.sha256(names.encode()).hexdigest()[:12]
        path = self.folder / f"part-{shard.number:05}-of-{shard.total:05}-{ending}.parquet"
        metadata = {"kind": KIND, "version": __version__, "shard": str(shard), "run": self.run}
        with BytesIO() as buffer:
            content = table(columns_of(rows), {METADATA_KEY: json.dumps(metadata)})
            _parquet().write_table(content, buffer, compression="zstd")
            checkpoint.remove_leftovers(path)
            checkpoint.write_bytes(path, buffer.getvalue())
        return path

    def _metadata(self, path: Path) -> dict[str, Any]:
        try:
            content = (_parquet().read_schema(path).metadata or {}).get(METADATA_KEY.encode(), b"{}")
        except (OSError, ValueError) as error:  # of Arrow's too
            raise ValueError(
                f"{path} is damaged or no Parquet file; remove it, and its images are done again"
            ) from error
        metadata: dict[str, Any] = json.loads(content)
        if metadata.get("kind") != KIND:
            raise ValueError(f"{path} is not from refinebox predict; name another --output")
        theirs, ours = metadata["run"], json.loads(json.dumps(self.run))
        other = next((name for name in {**theirs, **ours} if theirs.get(name) != ours.get(name)), None)
        if other is not None:
            raise ValueError(
                f"{path} is of another run: its {other} is {brief(theirs.get(other))}, here it is "
                f"{brief(ours.get(other))}; name another --output"
            )
        return metadata


@dataclass
class Written:
    """What became of a shard.

    Attributes:
        done: how many of its images older parts hold.
        images: how many are in new parts.
        parts: the new parts.
        unreadable: why some of the images have no detections.
        without: how many have no boxes, where somebody else should have said what is in them.
    """

    done: int = 0
    images: int = 0
    parts: list[Path] = field(default_factory=list)
    unreadable: list[str] = field(default_factory=list)
    without: int = 0


def predict_parts(
    detector: Detector,
    images: Mapping[str, Path],
    parts: Parts,
    *,
    shard: Shard,
    least: float = 0.05,
    size: int = 1000,
    skip_done: bool = False,
) -> Written:
    """Writes the detections in the images of a shard, a part for every ``size`` of them.

    An image that cannot be read is a row that says why, and counts as done.

    Args:
        detector: that looks at them.
        images: files by name, of all shards.
        parts: where the detections go.
        shard: whose images are done.
        least: lowest score that is written.
        size: images in a part.
        skip_done: whether to leave out the images of parts that are there already.

    Raises:
        ValueError: there are parts of another run.
        FileExistsError: there are parts of this shard, and ``skip_done`` is not given.
    """
    there = parts.there()
    same = [path for path, other in there.items() if other == shard or other.total != shard.total]
    if same and not skip_done:
        raise FileExistsError(f"{same[0]} holds images of this shard; pass --skip-done to go on, or another --output")
    mine = {name: path for name, path in images.items() if shard.holds(name)}
    done = parts.done(there) if skip_done else set()
    left = {name: path for name, path in mine.items() if plain(name) not in done}
    written = Written(len(mine) - len(left))
    rows = rows_of(detector, images, left, least, written)
    while group := list(islice(rows, size)):
        written.parts.append(parts.write(group, shard))
        written.images += len(group)
        written.unreadable += [row["error"] for row in group if row["error"]]
    return written


def rows_of(
    detector: Detector, images: Mapping[str, Path], left: Mapping[str, Path], least: float, written: Written
) -> Iterator[Row]:
    """The rows of the images that are ``left``, one after the other; counts those without boxes."""
    if not left:
        return
    given, places = detector.proposals_in([*images.values()]), {name: place for place, name in enumerate(images)}
    for name, path in track(left.items(), "predict", len(left)):
        boxes = given[places[name]]
        written.without += lacks(boxes)
        yield row_of(detector, name, path, least, boxes)


def run_of(detector: Detector, file: Path | None, results: Path | None, **settings: Any) -> dict[str, Any]:
    """What the detections depend on: the model, how it is used, and what its categories are called.

    Args:
        detector: as it looks at images.
        file: that it was read from, if there is one.
        results: whose boxes it takes, if it takes any.
        settings: whatever else changes what is written.
    """
    model = detector.weights_sha256() if file is None else checkpoint.file_sha256(file)
    boxes = None if results is None else checkpoint.file_sha256(results)
    form = {f"input {name}": value for name, value in asdict(detector.profile.input).items()}
    return {"model": model, "categories": detector.category_names, **settings, "results": boxes, **form}


def check(folder: Path) -> None:
    """Finds out before any work whether parts could be written.

    Raises:
        ValueError: pyarrow cannot be imported, or the folder is an address of object storage.
        NotADirectoryError, PermissionError: it is a file, or may not be written to.
    """
    _parquet()
    if re.match(r"\w\w+:[/\\]", str(folder)):
        raise ValueError(f"{folder} is no folder; name one and copy it there afterwards, or use Ray Data")
    place.check_folder(folder, " for the parts")


def _parquet() -> Any:
    library("pyarrow", "parquet", "Parquet")
    return library("pyarrow.parquet", "parquet", "Parquet")
