"""Records of training images on disk, so that what the frozen detector saw once need not be computed again.

From boxes and cells an epoch is trained without the detector; from boxes alone, where there was no room for cells, it
needs the backbone.
"""

import hashlib
import json
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from refinebox import distributed
from refinebox.data.batches import Batch
from refinebox.data.dataset import CocoDataset
from refinebox.data.input_format import InputFormat
from refinebox.detection.detector import Detector
from refinebox.detection.profile import Profile
from refinebox.files import checkpoint
from refinebox.training.observation import Observation, observe
from refinebox.training.record import Record, empty_maps, encode, fill, read, recorded

FORM = 1  # of the files; counts up when what they mean changes


@dataclass(frozen=True)
class Piece:
    """A batch as the cache knows it.

    Attributes:
        paths: where each image's record belongs.
        records: of each image, None where there is none yet.
        batch: the images themselves, unless every record has cells.
        image_ids: the annotation file's ids.
        unreadable: why other images of the batch could not be read; they are left out.
    """

    paths: list[Path]
    records: list[Record | None]
    batch: Batch | None
    image_ids: list[int]
    unreadable: list[str] = field(default_factory=list)

    @property
    def objects(self) -> int:
        """Objects of all images."""
        if self.batch is not None:
            return self.batch.objects
        return sum(record.objects for record in self.records if record is not None)

    def to(self, device: torch.device) -> "Piece":
        """The same piece with its images on ``device``."""
        return replace(self, batch=self.batch and self.batch.to(device))

    def pin_memory(self) -> "Piece":
        """The same piece with its images where CUDA can copy them from while other work goes on."""
        return replace(self, batch=self.batch and self.batch.pin_memory())


class Cache(Dataset[Piece]):
    """The records of the images of ``dataset``, and the data set that reads them.

    A record is named by hashes of all that it depends on: the detector, its input size and precision, the
    augmentation, the image file's name and length, the objects, and boxes from elsewhere if the detector takes any.
    Another detector, data set, results file or setting finds none.

    Args:
        folder: of the records of any number of detectors.
        limit: bytes that the files in ``folder`` may take; beyond it boxes are still kept, but no more cells.
        detector, dataset: what is trained on what.
        enlargement: how far around its boxes the refiner looks, as :class:`Architecture` says.
        pixels: keep those as well, for a refiner with a stem.
    """

    def __init__(
        self,
        folder: Path,
        limit: float,
        detector: Detector,
        dataset: CocoDataset,
        enlargement: float = 1.0,
        *,
        pixels: bool = False,
    ) -> None:
        self.dataset, self.enlargement, self.pixels = dataset, enlargement, pixels
        self.strides = (*((1,) if pixels else ()), *detector.strides)
        depends = {
            "form": FORM,
            "detector": detector.weights_sha256(),
            "profile": described(detector.profile),
            "precision": detector.precision,
            "augmentation": dataset.augmentation,
            "seed": dataset.seed,
        }
        if enlargement != 1:  # as version 0.1.0 had it
            depends["enlargement"] = enlargement
        if pixels:
            depends["pixels"] = True
        self.folder = folder / _digest(depends)[:16]
        remove_leftovers(folder)
        taken = sum(path.stat().st_size for path in folder.rglob("*.safetensors"))
        self.room = (limit - taken) / distributed.processes()
        self.refused = 0
        self.failure = ""

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitems__(self, indices: Sequence[int]) -> Piece:
        """A batch; its images are read only if some record has no cells."""
        ids = [self.dataset.images[index]["id"] for index in indices]
        paths = [self._path(index) for index in indices]
        records = [read(path) for path in paths]
        if all(record is not None and record.kept for record in records):
            return Piece(paths, records, None, ids)
        batch = self.dataset.__getitems__(indices)
        there = [place for place, image_id in enumerate(ids) if image_id in batch.image_ids]
        return Piece(
            [paths[place] for place in there],
            [records[place] for place in there],
            batch,
            batch.image_ids,
            batch.unreadable,
        )

    def observe(self, detector: Detector, piece: Piece) -> Observation:
        """As ``observe`` without a cache, from records where there are any; writes those that are missing.

        A record that has just been written is used as a later epoch will read it, rounded and with zeros where it knows
        nothing, so that a training sees the same whether or not it was interrupted in between.
        """
        device = next(detector.parameters()).device
        known = [record.to(device) for record in piece.records if record is not None]
        if piece.batch is None:
            maps: Sequence[Tensor] = empty_maps(known, self.strides, device)
        elif len(known) == len(piece.records):
            images = (detector.padded(piece.batch.images),) if self.pixels else ()
            maps = [*images, *detector.features(piece.batch.images, piece.batch.sizes)]
        else:
            # all images together, though some are known: in another batch their padding would be another
            seen = observe(detector, piece.batch, pixels=self.pixels)
            maps = [feature.clone() for feature in seen.features]
            known = self._completed(piece, piece.batch, seen)
        fill(maps, known)
        counts = torch.tensor([len(record.boxes) for record in known], device=device)
        return Observation(
            tuple(maps),
            torch.cat([record.boxes for record in known]),
            torch.cat([record.wanted for record in known]),
            torch.arange(len(known), device=device).repeat_interleave(counts),
            torch.stack([record.size for record in known]),
            piece.image_ids,
        )

    def shortage(self) -> str:
        """A line for the user if not all could be kept since the last call, or nothing."""
        refused, failure, self.refused, self.failure = self.refused, self.failure, 0, ""
        if failure:
            return f"the cache cannot be written ({failure}); what is missing is computed anew in every epoch"
        if refused:
            return f"the cache is full: {refused} images need the backbone in every epoch; a larger --cache-size helps"
        return ""

    def _completed(self, piece: Piece, batch: Batch, seen: Observation) -> list[Record]:
        """The records of all images, of which those that were missing have been written."""
        padded, device = batch.images.shape[-2:], batch.images.device
        return [
            self._written(
                path,
                recorded(seen, index, len(batch.targets[index].boxes), padded, self.strides, self.enlargement),
            )
            if record is None
            else record.to(device)
            for index, (path, record) in enumerate(zip(piece.paths, piece.records, strict=True))
        ]

    def _written(self, path: Path, record: Record) -> Record:
        """The record as the file holds it: without cells where there is no room for them."""
        data = encode(record)
        if len(data) > self.room:
            self.refused += 1
            record = record.without_cells()
            data = encode(record)
        try:
            checkpoint.write_bytes(path, data)
        except OSError as error:  # such as a full disk; training goes on without
            self.failure = self.failure or str(error)
            return record.without_cells()
        self.room -= len(data)
        return record

    def _path(self, index: int) -> Path:
        name = self.dataset.images[index]["file_name"]
        path = self.dataset.folder / name
        depends = [
            name,
            path.stat().st_size if path.exists() else None,
            self.dataset.boxes[index].tolist(),
            self.dataset.columns[index].tolist(),
            *self.dataset.unlike_stored(index),
        ]
        if self.dataset.proposals is not None:
            found = self.dataset.proposals[self.dataset.images[index]["id"]]
            depends.append(checkpoint.tensors_sha256({"boxes": found.boxes, "scores": found.scores}))
        name = _digest(depends)
        return self.folder / str(self.dataset.variant) / name[:2] / f"{name}.safetensors"


def described(profile: Profile) -> dict[str, Any]:
    """All of a profile that decides what a detector sees, in version 0.1.0's words, so that its caches still serve."""
    form, choice = profile.input, profile.final
    plain = InputFormat(short_side=form.short_side, long_side=form.long_side, rounding=form.rounding)
    old = {
        "name": "",
        "family": profile.family,
        "classification": profile.classification,
        "category_ids": profile.category_ids,
        "category_names": profile.category_names,
        "short_side": form.short_side,
        "long_side": form.long_side,
        "settings": profile.settings,
        "layout": profile.layout,
        "detections": choice.limit,
    }
    return old if form == plain else old | {"input": asdict(form)}


def remove_leftovers(folder: Path, age: float = 3600) -> None:
    """Removes what killed writers left under ``folder``, but for what is younger than ``age`` seconds."""
    for path in folder.rglob(".*.safetensors.*"):
        with suppress(OSError):  # another process was faster
            if time.time() - path.stat().st_mtime > age:
                path.unlink()


def _digest(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()
