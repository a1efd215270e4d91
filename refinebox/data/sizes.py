"""Whether the pictures are what was labelled: turned, resized, or others altogether."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from refinebox.data import frames
from refinebox.data.images import Header, by, read_header, same_shape, turns
from refinebox.data.tally import Tally

MANY = 2000  # headers that are read before a sound data set is believed; all of them where one is not sound
SURE = 0.98  # share of the boxes that fit a size which is believed

Entry = dict[str, Any]


@dataclass(frozen=True)
class Files:
    """What the files of a data set's images say.

    Attributes:
        headers: by number of the image; of a sample where all of it is sound.
        upright: whether labelling looked at images turned as EXIF says, where their size does not tell.
        strict: whether an image is an error that was labelled as another.
    """

    headers: Mapping[Any, Header]
    upright: bool
    strict: bool

    @classmethod
    def of(cls, entries: Sequence[Entry], folder: Path, *, needed: bool, strict: bool) -> "Files":
        """Of all images, or of those alone whose size is missing where they are not ``needed``.

        Raises:
            FileNotFoundError, ValueError: ``strict``, and a size is missing that no file tells.
        """
        headers = _headers(entries if needed else [e for e in entries if not all(_size(e))], folder, strict)
        return cls(headers, _upright(entries, headers), strict)

    def fill(self, entries: Sequence[Entry], tally: Tally) -> list[Entry]:
        """With width and height, as people see the image, where they were missing; 0 where no file tells them."""
        return [_sized(entry, self.headers.get(entry["id"]), self.upright, tally) for entry in entries]

    def settle(self, entries: list[Entry], objects: Sequence[Mapping[str, Any]], tally: Tally) -> list[Entry]:
        """With the sizes that were labelled, where entries and files differ.

        The boxes tell: if they fit the files, these count. If the shapes are equal, the picture was resized after
        labelling, and boxes go with it. Otherwise it is another picture, which nobody can use.

        Raises:
            ValueError: ``strict``, and there are other pictures; or there is nothing else.
        """
        seen = {
            entry["id"]: header.upright if turns(header, _size(entry), upright=self.upright) else header.size
            for entry in entries
            if (header := self.headers.get(entry["id"]))
        }
        odd = [entry for entry in entries if entry["id"] in seen and seen[entry["id"]] != _size(entry)]
        if not odd:
            return entries
        if not _fits_files(odd, objects, seen):
            _tell(odd, seen, len(entries), tally, self.strict)
            return entries
        tally.add("image sizes taken from the files, which the boxes fit", _example(odd[0], seen), len(odd))
        corrected = {entry["id"]: seen[entry["id"]] for entry in odd}
        return [_resized(entry, corrected.get(entry["id"], _size(entry))) for entry in entries]


def _headers(entries: Sequence[Entry], folder: Path, strict: bool) -> dict[Any, Header]:
    step = max(1, len(entries) // MANY)
    sample = [entry for index, entry in enumerate(entries) if not index % step or not all(_size(entry))]
    found = _read(sample, folder, strict)
    sound = all(header.size == _size(entry) for entry in sample if (header := found.get(entry["id"])))
    if not sound and len(sample) < len(entries):
        found |= _read([entry for entry in entries if entry["id"] not in found], folder, strict)
    return found


def _read(entries: Sequence[Entry], folder: Path, strict: bool) -> dict[Any, Header]:
    found = {}
    for entry in entries:
        try:
            found[entry["id"]] = read_header(folder / entry["file_name"])
        except (OSError, ValueError):
            if strict and not all(_size(entry)):
                raise
    return found


def _upright(entries: Sequence[Entry], headers: Mapping[Any, Header]) -> bool:
    """Whether labelling looked at turned pictures, told from those whose sides a turn exchanges."""
    votes = Counter(
        turns(header, _size(entry))
        for entry in entries
        if (header := headers.get(entry["id"]))
        and _size(entry) in (header.size, header.upright)
        and header.size != header.upright
    )
    return votes[True] >= votes[False]


def _sized(entry: Entry, header: Header | None, upright: bool, tally: Tally) -> Entry:
    if header is None:
        return _resized(entry, _size(entry) if all(_size(entry)) else (0, 0))
    if not all(_size(entry)):
        tally.add("image sizes read from files")
        entry = _resized(entry, header.upright if upright else header.size)
    turned = turns(header, _size(entry), upright=upright)
    name = entry["file_name"]
    if header.orientation != 1:
        what = "turned upright" if turned else "left as stored, as they were labelled"
        tally.add(f"images with an EXIF orientation {what}", name)
    tally.add("images of more than 8 bits scaled by their range", name, int(header.deep))
    tally.add("files with several frames, of which the first counts", name, int(header.frames > 1))
    return entry


def _size(entry: Mapping[str, Any]) -> tuple[int, int]:
    return entry.get("width") or 0, entry.get("height") or 0


def _resized(entry: Entry, size: tuple[int, int]) -> Entry:
    return {**entry, "width": size[0], "height": size[1]}


def _fits_files(
    entries: Sequence[Entry], objects: Sequence[Mapping[str, Any]], seen: Mapping[Any, tuple[int, int]]
) -> bool:
    """Whether boxes are of the files rather than of the entries; of larger files they can be either."""
    sizes = {entry["id"]: (seen[entry["id"]], _size(entry)) for entry in entries}
    found = [(entry["bbox"], *sizes[entry["image_id"]]) for entry in objects if entry["image_id"] in sizes]
    if len(found) < frames.FEW:
        return False
    boxes, files, listed = (np.array(column, dtype=np.float64) for column in zip(*found, strict=True))
    either = frames.inside(boxes, listed)[(files >= listed).all(1)]
    fitting = frames.inside(boxes, files).mean() >= SURE
    return bool(fitting and not (len(either) == len(boxes) and either.mean() >= SURE))


def _tell(odd: Sequence[Entry], seen: Mapping[Any, tuple[int, int]], images: int, tally: Tally, strict: bool) -> None:
    resized = [entry for entry in odd if same_shape(seen[entry["id"]], _size(entry))]
    others = [entry for entry in odd if not same_shape(seen[entry["id"]], _size(entry))]
    if resized:
        tally.add(
            "images of another size than labelled, with which boxes are scaled",
            _example(resized[0], seen),
            len(resized),
        )
    if not others:
        return
    if strict or len(others) == images:
        raise ValueError(
            f"{len(others)} of {images} images are not of the size that their annotations are of, such as "
            f"{_example(others[0], seen)}; turned or cut after labelling? use the pictures that were labelled"
        )
    tally.add("images that are not as they were labelled", _example(others[0], seen), len(others))


def _example(entry: Entry, seen: Mapping[Any, tuple[int, int]]) -> str:
    return f"{entry['file_name']}: {by(seen[entry['id']])} pixels, labelled as {by(_size(entry))}"
