"""Where a detector loses AP: every swap evaluated, TIDE's errors, and what a refiner made of it."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from refinebox.analysis import swaps, tide
from refinebox.analysis.comparison import Comparison, compare
from refinebox.data.annotations import CocoData
from refinebox.data.categories import Matching
from refinebox.data.frames import Reading
from refinebox.data.tally import Tally
from refinebox.evaluation.evaluator import Evaluation, Evaluator
from refinebox.evaluation.overlaps import FOREGROUND, Objects
from refinebox.evaluation.results import read_results
from refinebox.evaluation.rows import Bools, Rows
from refinebox.files import checkpoint
from refinebox.progress import track

if TYPE_CHECKING:  # detections of a file need no torch
    from refinebox.detection.detector import Detector
    from refinebox.evaluation.link import Link

LIVE_RULE = (
    "The other rows (a box from some IoU, no duplicates, no background, no misses) and TIDE's errors start from the "
    "detections and match greedily, as COCO does."
)
LVIS_RULE = (
    "LVIS: AP, TIDE's errors and the bootstrap are of the categories that were looked for in each image, at 300 "
    "detections an image; a detection of another category counts neither way, unless a swap gives it its object's."
)


@dataclass(frozen=True)
class Found:
    """What a detector found in a data set.

    Attributes:
        name: for people.
        swapped: ``[N, 7]`` detections as they are (``none``) and after the swaps that were made on a live detector.
        rules: how predictions were matched to objects, and what happens to scores.
        before: what a refiner started from, where ``none`` is refined: the boxes as they are (``none``) and perfect
            (``box``).
        refined: ``[N, 7]`` the same detections with better boxes, where ``none`` is not refined.
        inputs: what was read, by name: ``name`` and ``sha256`` of the file, or of the detector's tensors.
        caveat: why these images do not measure what a refiner gains, where they do not.
    """

    name: str
    swapped: Mapping[str, Rows]
    rules: tuple[str, ...]
    before: Mapping[str, Rows] = field(default_factory=dict)
    refined: Rows | None = None
    inputs: Mapping[str, dict[str, str]] = field(default_factory=dict)
    caveat: str | None = None


@dataclass(frozen=True)
class Analysis:
    """Everything that the report shows.

    Attributes:
        found: the detections.
        swaps: name, title and meaning, in the table's order.
        min_iou: of the boxes that count as reachable.
        evaluations: by name of the swap.
        errors: TIDE's, see :func:`refinebox.analysis.tide.analyse`.
        comparison: with refined boxes, where there are some.
        rows: detections before and after: refined, or else with every reachable box perfect.
        evaluated_by: the library that counted precision and recall, and its version.
        remarks: what was odd about the detections, a line each.
    """

    data: CocoData
    found: Found
    swaps: tuple[swaps.Swap, ...]
    min_iou: float
    evaluations: dict[str, Evaluation]
    errors: dict[str, Any]
    comparison: Comparison | None
    rows: tuple[Rows, Rows]
    evaluated_by: str
    remarks: tuple[str, ...] = ()


def run(
    data: CocoData,
    detector: "Detector | None" = None,
    results: Path | None = None,
    refined: Path | None = None,
    categories: Matching = "check",
    *,
    boxes: Reading | None = None,
    min_iou: float = FOREGROUND,
    lvis: bool = False,
    batch_size: int = 1,
    workers: int = 0,
) -> Analysis:
    """The analysis of a live detector or of a COCO results file.

    Args:
        data: the objects.
        detector, results: one of the two; the file is COCO's results of any detector.
        refined: COCO results file of the same detector with better boxes.
        categories: how they are matched with the live detector's, or counted in the files.
        boxes: what boxes of the files are that do not fit as COCO's xywh; by default they are an error.
        batch_size, workers: of the live detector.
        min_iou: what a box must overlap its object by for a refiner to reach it.
        lvis: evaluate as LVIS does.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the sources are none or two, a file cannot be used, the detector's categories are not the data's,
            or ``lvis`` is set and the annotations are not LVIS'.
    """
    if (detector is None) == (results is None):
        given = "neither" if detector is None else "both"
        raise ValueError(f"name one source of detections, --detector NAME or --results FILE; got {given}")
    evaluate = Evaluator(data, lvis=lvis)  # what is wrong with files is told before the work
    remarks: list[str] = []
    read = partial(_read, data=data, categories=categories, boxes=boxes, remarks=remarks)
    better = None if refined is None else read(refined)
    if detector is not None:
        from refinebox.evaluation.doubts import doubts
        from refinebox.evaluation.link import Link

        link = Link.between(detector, data, categories)
        found = of_detector(detector, data, link, batch_size=batch_size, workers=workers)
        remarks += [f"{found.name}: {sentence}" for sentence in doubts(detector, data, link, found.swapped["none"])]
    else:
        assert results is not None
        found = of_results(results, read(results))
    files = {"annotations": data.source, "refined": refined}
    inputs = {**found.inputs, **{name: described(path) for name, path in files.items() if path is not None}}
    done = analyse(evaluate, replace(found, refined=better, inputs=inputs), min_iou)
    return replace(done, remarks=(*remarks, *done.remarks))


def _read(path: Path, data: CocoData, categories: Matching, boxes: Reading | None, remarks: list[str]) -> Rows:
    tally = Tally()
    rows = read_results(path, data, categories=categories, boxes=boxes, tally=tally)
    remarks += tally.lines(path.name)
    return rows


def of_results(path: Path, rows: Rows) -> Found:
    """The detections of a COCO results file."""
    return Found(
        path.name, {"none": rows}, (swaps.MATCHING_RULE, swaps.SCORE_RULE), inputs={"results": described(path)}
    )


def of_detector(detector: "Detector", data: CocoData, link: "Link", *, batch_size: int = 1, workers: int = 0) -> Found:
    """The detections of a live detector, from one forward pass, and those of the swaps that need its scores."""
    from refinebox.analysis import oracle
    from refinebox.evaluation.doubts import no_measure

    rows = oracle.swapped_rows(
        detector, data, link, swaps=tuple(oracle.CHANGES), batch_size=batch_size, workers=workers
    )
    before = {name: rows.pop(key) for name, key in (("none", "before"), ("box", "before_box")) if key in rows}
    name, digest = detector.profile.name, checkpoint.tensors_sha256(detector.state_dict())
    inputs = {"detector": {"name": name, "sha256": digest}}
    rules = (oracle.MATCHING_RULE, oracle.SCORE_RULE, LIVE_RULE)
    return Found(name, rows, rules, before, inputs=inputs, caveat=no_measure(detector, data) if before else None)


def described(path: Path) -> dict[str, str]:
    """Name and SHA-256 of a file."""
    return {"name": path.name, "sha256": checkpoint.file_sha256(path)}


def analyse(evaluate: Evaluator, found: Found, min_iou: float = FOREGROUND) -> Analysis:
    """Evaluates every swap; a box is reachable for a refiner from ``min_iou`` with its object on."""
    findings = swaps.Findings.of(found.swapped["none"], Objects.of(evaluate.data, lvis=evaluate.lvis))
    listed = swaps.swaps(min_iou)
    swapped = {swap.name: swap.apply(findings) for swap in listed if swap.name not in found.swapped}
    evaluations = {}
    for swap in track(listed, "swaps", len(listed)):
        if swap.name in swapped:
            evaluations[swap.name] = evaluator(evaluate, swapped[swap.name].objects)(swapped[swap.name].rows)
        else:
            evaluations[swap.name] = evaluate(found.swapped[swap.name])
    before, after = found.before.get("none", found.swapped["none"]), found.refined
    if after is None and found.before:
        after = found.swapped["none"]
    comparison: Comparison | None = None
    remarks: tuple[str, ...] = ()
    if after is not None:
        swapped_boxes = found.before.get("box", found.swapped.get("box"))
        best = swapped["box"].rows if swapped_boxes is None else swapped_boxes
        comparison, remarks = compare(evaluate, before, after, best)
    rows = before, swapped["box_from_iou"].rows if after is None else after
    errors = tide.analyse(findings.overlaps)
    if evaluate.lvis:
        found = replace(found, rules=(*found.rules, LVIS_RULE))
    by = evaluate.backend.name
    return Analysis(evaluate.data, found, listed, min_iou, evaluations, errors, comparison, rows, by, remarks)


def evaluator(whole: Evaluator, objects: Bools) -> Evaluator:
    """The same evaluation against some of its objects."""
    if objects.all():
        return whole
    kept = [entry for entry, stays in zip(whole.data.annotations, objects, strict=True) if stays]
    return Evaluator(replace(whole.data, annotations=kept), lvis=whole.lvis)
