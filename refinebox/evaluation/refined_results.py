"""A results file in, a better one out: the same detections, and of every image the best with their boxes moved."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from refinebox import distributed
from refinebox.boxes import to_pixels
from refinebox.data import frames, results_file
from refinebox.data.annotations import CocoData, labelled_size
from refinebox.data.images import read_header
from refinebox.data.proposals import RowsByImage
from refinebox.data.references import Counting, reference, told
from refinebox.data.results_file import Rows
from refinebox.data.tally import Tally
from refinebox.detection.detector import Detector
from refinebox.evaluation.detect import evaluation_batches
from refinebox.evaluation.link import Link
from refinebox.refinement.refined_detector import RefinedDetector

DECIMALS = 3  # of a pixel
SCORE_DECIMALS = 6
LOOKED_AT = 300  # images, to tell what boxes are


@dataclass(frozen=True)
class Refined:
    """The detections, in the order of the file, how many of them moved, and why images could not be read."""

    entries: list[dict[str, Any]]
    moved: int
    unreadable: list[str]


def matched(entries: list[Any], data: CocoData, where: str, categories: Counting, tally: Tally) -> Rows:
    """``[N, 7]`` the rows of a whole results file, each in an image of ``data``.

    Raises:
        ValueError: some are in others or of another category, or their boxes look like something else than x, y, width
            and height in pixels.
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
        _check_boxes(rows, data)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error
    return rows


def _check_boxes(rows: Rows, data: CocoData) -> None:
    """Raises ValueError where boxes fit their images better as something else than x, y, width and height in pixels."""
    some = set(np.unique(rows[:, 0]).astype(np.int64)[:LOOKED_AT].tolist())
    sizes = {entry["id"]: _size(entry, data.folder) for entry in data.images if entry["id"] in some}
    seen = rows[[sizes.get(image) is not None for image in rows[:, 0].astype(np.int64).tolist()]]
    of_rows = [sizes[image] for image in seen[:, 0].astype(np.int64).tolist()]
    try:
        frames.chosen(seen[:, 1:5], np.array(of_rows, dtype=np.float64).reshape(-1, 2), None)
    except ValueError as error:
        sentence = str(error).partition("; pass --boxes")[0]
        raise ValueError(f"{sentence}; write x, y, width and height in pixels of the image files") from error


def _size(entry: dict[str, Any], folder: Path) -> tuple[int, int] | None:
    try:
        return labelled_size(entry) or read_header(folder / entry["file_name"]).upright
    except (OSError, ValueError):
        return None


def refine_results(
    model: Detector,
    entries: Sequence[Mapping[str, Any]],
    rows: Rows,
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
        entries, rows: the detections as they stand in the file, and as :func:`matched` gives them.
        data: their images.
        link: the model's categories beside the data's.
        batch_size, workers: images in a batch, processes that read them.

    Raises:
        ValueError: the model has no refiner or finds its own boxes, a label or score cannot be, or no image can be
            read.
    """
    seen = set(rows[:, 0].astype(np.int64).tolist())
    images = [entry for entry in data.images if entry["id"] in seen]
    if not images:
        return Refined([dict(entry) for entry in entries], 0, [])
    data = replace(data, images=images, annotations=[], given=rows)
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
                old = map(float, entry["bbox"])
                entry["bbox"] = [round(value + change, DECIMALS) for value, change in zip(old, move, strict=True)]
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
