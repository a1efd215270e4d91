"""A detector over a data set: result rows and AP, before and after refinement, from one forward pass."""

from collections.abc import Mapping
from copy import copy
from dataclasses import replace
from typing import Any

import numpy as np

from refinebox import distributed
from refinebox.data.annotations import CocoData
from refinebox.data.batches import Batch, cut, loaded
from refinebox.data.dataset import CocoDataset
from refinebox.detection.detector import Detector
from refinebox.detection.output import DetectorOutput
from refinebox.evaluation.evaluator import Metrics, coco_ap
from refinebox.evaluation.link import Link
from refinebox.evaluation.rows import Rows, to_rows
from refinebox.progress import track
from refinebox.refinement.exported import ExportedUpgraded
from refinebox.refinement.move import clipped
from refinebox.refinement.refined_detector import RefinedDetector
from refinebox.refinement.refiner import Refiner


def evaluation_batches(
    detector: Detector,
    data: CocoData,
    link: Link,
    *,
    batch_size: int,
    workers: int,
    description: str,
    strict: bool = True,
) -> Any:
    """This process's share of the batches, in which every image of ``data`` occurs once, with progress shown."""
    proposals = detector.proposals(data, link.columns)
    dataset = CocoDataset(data, link.columns, form=detector.profile.input, proposals=proposals)
    dataset.strict = strict
    pieces = cut(range(len(dataset)), batch_size)[distributed.rank() :: distributed.processes()]
    loader = loaded(dataset, pieces, workers, next(detector.parameters()).device)
    return track(loader, description, len(pieces))


def combined(found: list[dict[str, Rows]]) -> dict[str, Rows]:
    """The rows of every batch, by name, from all processes and in the data's order."""
    everything = distributed.gathered(found)
    names = {name: None for part in everything for name in part}
    return {name: np.concatenate([part[name] for part in everything if part]) for name in names}


def detect(
    detector: Detector,
    data: CocoData,
    link: Link,
    *,
    batch_size: int = 1,
    workers: int = 0,
    description: str = "evaluate",
    others: Mapping[str, Refiner] | None = None,
    voter: Detector | None = None,
    unreadable: list[str] | None = None,
) -> dict[str, Rows]:
    """COCO result rows of every image by the names of :func:`stages`.

    Where suppressed candidates vote, ``before`` is the detector without that; with it, it is ``after``, or ``voted``
    where a refiner moves the boxes first.

    Args:
        detector, data, link: what is detected where.
        batch_size: images in a batch.
        workers: processes that read images.
        description: of the progress.
        others: further refiners of the same detector, which add their rows under their names.
        voter: the same detector with suppressed candidates that vote, which chooses again from every output; its rows
            are those under ``NAME voted``.
        unreadable: gets the reason for each image that cannot be read, which then has no rows; without it, such an
            image is an error.

    Raises:
        FileNotFoundError, ValueError: an image cannot be read, or none can; the message names it.
    """
    missed: list[str] = []
    strict = unreadable is None
    device = next(detector.parameters()).device
    found: list[dict[str, Rows]] = []
    for batch in evaluation_batches(
        detector, data, link, batch_size=batch_size, workers=workers, description=description, strict=strict
    ):
        batch = batch.to(device)
        found.append({})
        missed += batch.unreadable
        if not batch.image_ids:
            continue
        for name, (chooser, output) in choosers(detector, stages(detector, batch, others), voter).items():
            detections = chooser.postprocess(chooser.scores_of(output), output.boxes, batch.original_sizes)
            found[-1][name] = to_rows(detections, batch.image_ids, link)
    missed = distributed.gathered(missed)
    if len(missed) == len(data.images):
        raise ValueError(f"none of {len(missed)} images could be read: {min(missed)}")
    if unreadable is not None:
        unreadable += missed
    return combined(found)


def choosers(
    detector: Detector, outputs: Mapping[str, DetectorOutput], voter: Detector | None = None
) -> dict[str, tuple[Detector, DetectorOutput]]:
    """By the name of each row of an evaluation, who chooses detections from which output; see :func:`detect`."""
    plain = unvoted(detector)
    named = {name: (detector, output) for name, output in outputs.items()}
    if voter is not None:
        named |= {f"{name} voted": (voter, output) for name, output in outputs.items()}
    if plain is None:
        return named
    voted = "voted" if "after" in outputs else "after"
    others = {name: each for name, each in named.items() if name != "before"}
    return {"before": (plain, outputs["before"]), voted: named["before"], **others}


def unrefined(rows: Mapping[str, Any]) -> str:
    """The name of the rows that only the refiner sets apart from those after it: voted and cut at the borders alike."""
    return next(name for name in ("clipped", "voted", "before") if name in rows)


def unvoted(detector: Detector) -> Detector | None:
    """The detector without its refiner and without the voting of suppressed candidates; None where none vote."""
    base = detector.detector if isinstance(detector, RefinedDetector) else detector
    final = base.profile.final
    if not final.voting:
        return None
    plain = copy(base)  # which shares its tensors
    plain.profile = replace(base.profile, choice=replace(final, voting=0.0))
    return plain


def evaluate(
    detector: Detector,
    data: CocoData,
    link: Link,
    *,
    batch_size: int = 1,
    workers: int = 0,
    others: Mapping[str, Refiner] | None = None,
    unreadable: list[str] | None = None,
) -> dict[str, Metrics]:
    """AP and its kin of all that :func:`detect` gives, from one forward pass; arguments and errors are its own."""
    rows = detect(detector, data, link, batch_size=batch_size, workers=workers, others=others, unreadable=unreadable)
    return {name: coco_ap(data, found) for name, found in rows.items()}


def stages(detector: Detector, batch: Batch, others: Mapping[str, Refiner] | None = None) -> dict[str, DetectorOutput]:
    """The outputs of one forward pass: ``before`` and, for a refined detector, ``after`` and what ``others`` add.

    Where the refiner's boxes are cut at the borders of the image, the detector's own are so under ``clipped``: what
    that alone is worth is no gain of the refiner's.
    """
    if isinstance(detector, RefinedDetector | ExportedUpgraded):
        before, after = detector.before_and_after(batch.images, batch.sizes, batch.proposals)
        more = {}
        if isinstance(detector, RefinedDetector):
            more = {name: detector.refined(before, batch.sizes, refiner) for name, refiner in (others or {}).items()}
        free = {"clipped": replace(before, boxes=clipped(before.boxes))} if detector.clips else {}
        return {"before": before, **free, "after": after, **more}
    return {"before": detector(batch.images, batch.sizes, batch.proposals)}
