"""A results file in, a better one out: the same detections, and of every image the best with their boxes moved."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from refinebox import distributed
from refinebox.boxes import to_pixels
from refinebox.data import frames, results_file
from refinebox.data.annotations import CocoData
from refinebox.data.fields import brief
from refinebox.data.frames import Reading
from refinebox.data.proposals import RowsByImage
from refinebox.data.references import Counting, reference, told
from refinebox.data.results_file import Rows
from refinebox.data.tally import Tally
from refinebox.detection.detector import Detector
from refinebox.evaluation.detect import evaluation_batches
from refinebox.evaluation.link import Link
from refinebox.refinement.refined_detector import RefinedDetector

DECIMALS = 3  # of a pixel
FRACTION_DECIMALS = 7  # of an image's side, where boxes are fractions
SCORE_DECIMALS = 6


@dataclass(frozen=True)
class Refined:
    """The detections, in the order of the file, how many of them moved, and why images could not be read."""

    entries: list[dict[str, Any]]
    moved: int
    unreadable: list[str]


@dataclass(frozen=True)
class Matched:
    """A results file whose detections have been found in images.

    Attributes:
        rows: ``[N, 7]`` with boxes as x, y, width and height in pixels.
        reading: what the boxes are in the file.
        sizes: ``[N, 2]`` (width, height) in pixels of their images, needed where boxes are fractions; 1 elsewhere.
    """

    rows: Rows
    reading: Reading
    sizes: NDArray[np.float64]

    def moved(self, place: int, box: Sequence[Any], move: Sequence[float]) -> list[float]:
        """The box of a detection as it stands in the file, moved by x, y, width and height in pixels, and rounded."""
        change = frames.written(np.array([move]), self.sizes[[place]], self.reading)[0]
        decimals = FRACTION_DECIMALS if self.reading.endswith("n") else DECIMALS
        return [round(float(value) + by, decimals) for value, by in zip(box, change.tolist(), strict=True)]


def matched(
    entries: list[Any],
    data: CocoData,
    where: str,
    categories: Counting,
    tally: Tally,
    boxes: Reading | None = None,
) -> Matched:
    """The detections of a whole results file, each in an image of ``data``.

    Raises:
        ValueError: some are in others or of another category, or their boxes look like something else than ``boxes``
            says, by default x, y, width and height in pixels.
    """
    known = set(map(id, results_file.within(entries, data)))
    lost = [told(reference(entry)) for entry in entries if id(entry) not in known]
    if lost:
        raise ValueError(
            f"{where}: {len(lost):,} of {len(entries):,} detections are in images that {data.folder} does not have, "
            f"such as {lost[0]}; expected file names beside image_id or as image_id, or pass --annotations FILE, which "
            "says which file each id is"
        )
    try:
        rows = results_file.rows(entries, data, categories, tally)
        reading = results_file.reading(rows, data, boxes)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error
    negative = (rows[:, 3:5] < 0).any(1) if reading.startswith("xywh") else np.zeros(len(rows), dtype=bool)
    if negative.any():
        entry = entries[int(negative.argmax())]
        raise ValueError(
            f"{where}: {negative.sum():,} boxes have negative sides, such as {brief(entry['bbox'])}; write x and y of "
            "the top left corner, and width and height"
        )
    if reading == "xywh":
        return Matched(rows, reading, np.ones((len(rows), 2)))
    tally.add(f"boxes of detections read as {frames.MEANINGS[reading]}", "", len(rows))
    sizes = results_file.image_sizes(rows, data)
    rows[:, 1:5] = frames.read(rows[:, 1:5], sizes, reading)
    return Matched(rows, reading, sizes)


def refine_results(
    model: Detector,
    entries: Sequence[Mapping[str, Any]],
    found: Matched,
    data: CocoData,
    link: Link,
    *,
    batch_size: int = 1,
    workers: int = 0,
) -> Refined:
    """The ``entries`` of a results file with better boxes; everything else in them stays as it is.

    A box moves by as much as the refiner moves it and is rounded to a thousandth of a pixel; one that moves less keeps
    its numbers. Detections beyond those that the refiner looks at, and those of images that cannot be read, are kept.

    Args:
        model: an upgraded detector that takes boxes.
        entries, found: the detections as they stand in the file, and as :func:`matched` gives them.
        data: their images.
        link: the model's categories beside the data's.
        batch_size, workers: images in a batch, processes that read them.

    Raises:
        ValueError: the model has no refiner or finds its own boxes, a label or score cannot be, or no image can be
            read.
    """
    seen = set(found.rows[:, 0].astype(np.int64).tolist())
    images = [entry for entry in data.images if entry["id"] in seen]
    if not images:
        return Refined([dict(entry) for entry in entries], 0, [])
    data = replace(data, images=images, annotations=[], given=found.rows)
    proposals = model.proposals(data, link.columns)
    if not isinstance(model, RefinedDetector) or not isinstance(proposals, RowsByImage):
        raise ValueError(
            f"{model.profile.name} cannot refine a results file; expected a file that refinebox apply wrote from a "
            "training with --results"
        )
    batches = evaluation_batches(
        model, data, link, batch_size=batch_size, workers=workers, description="refine", strict=False
    )
    unreadable: list[str] = []
    changes: list[tuple[NDArray[np.int64], NDArray[np.float64]]] = []
    for batch in batches:
        unreadable += batch.unreadable
        if batch.image_ids:
            changes += _changes(model, batch.to(next(model.parameters()).device), proposals)
    unreadable = distributed.gathered(unreadable)
    if len(unreadable) == len(images):
        raise ValueError(f"none of {len(images)} images could be read: {min(unreadable)}")
    refined = [dict(entry) for entry in entries]
    moved = 0
    for places, change in distributed.gathered(changes):
        for place, (x, y, width, height, score) in zip(places.tolist(), change.tolist(), strict=True):
            entry = refined[place]
            move = x, y, width, height
            if max(map(abs, move)) >= 0.5 * 10**-DECIMALS:
                entry["bbox"] = found.moved(place, entry["bbox"], move)
                moved += 1
            if abs(score) >= 0.5 * 10**-SCORE_DECIMALS:
                entry["score"] = round(float(entry["score"]) + score, SCORE_DECIMALS)
    return Refined(refined, moved, unreadable)


def _changes(
    model: RefinedDetector, batch: Any, proposals: RowsByImage
) -> list[tuple[NDArray[np.int64], NDArray[np.float64]]]:
    """Of each image, the places of its rows in the file, and by how much x, y, width, height and score change."""
    before, after = model.before_and_after(batch.images, batch.sizes, batch.proposals)
    moves = to_pixels(after.boxes, batch.original_sizes) - to_pixels(before.boxes, batch.original_sizes)  # [B, Q, 4]
    moves[..., 2:] -= moves[..., :2].clone()
    rescored = model.scores_of(after) - model.scores_of(before)  # [B, Q, K]
    changes = []
    for index, image_id in enumerate(batch.image_ids):
        places = proposals.places(image_id)
        queries = proposals.queries(places)
        move = moves[index].double().cpu().numpy()[queries]
        score = rescored[index].double().cpu().numpy()[queries, proposals.columns[places]]
        changes.append((places, np.column_stack([move, score])))
    return changes
