"""How far an exported file is from torch: found by running both, side by side, before the file is put in place."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from refinebox.boxes import to_pixels
from refinebox.detection.output import Detections
from refinebox.refinement.exportable import Part, Whole, sizes_of

BATCHES = (1, 3)
COUNTS = 0.05  # in half precision, score from which a query is compared: below it boxes are noise to begin with
Run = Callable[[tuple[Any, ...]], Mapping[str, Tensor]]  # an exported graph: arguments in, outputs by name


@dataclass(frozen=True)
class Bar:
    """Differences that may be rounding.

    Attributes:
        boxes: of a coordinate, in pixels of the detector's input.
        scores: of a score.
        maps: of a cell, as a share of the largest in its map.
        above: only queries with such a score are compared, or the best of an image; 0 compares all.
    """

    boxes: float = 0.1
    scores: float = 1e-4
    maps: float = 1e-4
    above: float = 0.0


WHOLE, HALF = Bar(), Bar(boxes=1.0, scores=0.01, maps=0.02, above=COUNTS)


@dataclass(frozen=True)
class Proof:
    """How far a file's outputs are from torch's, over everything that was tried; None where there is no such output.

    Attributes:
        boxes, scores, maps: the largest differences, in the units of :class:`Bar`.
        batches: batch sizes that were tried,
        sizes: each with these (height, width), in pixels.
    """

    boxes: float | None
    scores: float | None
    maps: float | None
    batches: tuple[int, ...]
    sizes: tuple[tuple[int, int], ...]

    def told(self) -> str:
        """The differences in words."""
        found = [
            f"{value:.2g} {unit}"
            for value, unit in (
                (self.boxes, "pixels"),
                (self.scores, "of a score"),
                (self.maps, "of a map's largest cell"),
            )
            if value is not None
        ]
        return " and ".join(found)


@torch.no_grad()
def prove(run: Run, part: Part, bar: Bar = WHOLE) -> Proof:
    """Runs an exported graph beside the part that it was made of.

    Raises:
        ValueError: the outputs differ by more than ``bar``.
    """
    found: dict[str, float] = {}
    sizes = sizes_of(part.detector)
    for count in BATCHES:
        for height, width in sizes:
            arguments = part.examples(count, height, width)
            for kind, value in differences(run(arguments), part(*arguments), arguments, part, bar).items():
                found[kind] = worst(found.get(kind, 0.0), value)
    proof = Proof(found.get("boxes"), found.get("scores"), found.get("maps"), BATCHES, sizes)
    over = [kind for kind, value in found.items() if not value <= getattr(bar, kind)]  # which NaN is
    if over:
        allowed = replace(proof, **{kind: getattr(bar, kind) for kind in found})
        advice = "please report it" if bar.above == 0 else "export it without --half"
        raise ValueError(
            f"the exported {part.detector.profile.name} differs from torch by up to {proof.told()}, expected at most "
            f"{allowed.told()}; nothing is written: {advice}"
        )
    return proof


def differences(
    found: Mapping[str, Tensor], wanted: Mapping[str, Tensor], arguments: tuple[Any, ...], part: Part, bar: Bar
) -> dict[str, float]:
    """The largest difference of each kind between the outputs for the same arguments, all of which are compared.

    Raises:
        ValueError: outputs are missing, or have other shapes.
    """
    shapes = [{name: tuple(tensor.shape) for name, tensor in each.items()} for each in (found, wanted)]
    if shapes[0] != shapes[1]:
        raise ValueError(
            f"the exported {part.detector.profile.name} returns {shapes[0]}, expected {shapes[1]} as torch does; "
            "nothing is written: please report it"
        )
    if isinstance(part, Whole):
        pairs = of_images(found, wanted, arguments[1], part, bar)
        return {"boxes": worst(*(pair[0] for pair in pairs)), "scores": worst(*(pair[1] for pair in pairs))}
    kinds = {"refined_boxes": "boxes", "refined_scores": "scores"}
    result: dict[str, float] = {}
    for name, tensor in wanted.items():
        kind = kinds.get(name, "maps")
        apart = largest(found[name] - tensor)
        result[kind] = worst(result.get(kind, 0.0), apart / largest(tensor) if kind == "maps" else apart)
    return result


def of_images(
    found: Mapping[str, Tensor], wanted: Mapping[str, Tensor], sizes: Tensor, part: Whole, bar: Bar
) -> list[tuple[float, float]]:
    """The largest differences of boxes and of scores of each image: of its queries, and of what was chosen of them."""
    pairs = []
    for kind in [kind for kind in ("query", "unrefined") if f"{kind}_boxes" in wanted]:
        queries = [(to_pixels(each[f"{kind}_boxes"], sizes), each[f"{kind}_scores"]) for each in (found, wanted)]
        pairs += [of_queries(*image, bar) for image in zip(*queries[0], *queries[1], strict=True)]
    ids, once = part.get_buffer("ids"), part.detector.profile.final.rule == "queries"
    boxes, scores = to_pixels(wanted["query_boxes"], sizes), wanted["query_scores"]
    for image, ranked in enumerate(wanted["scores"]):
        detections = Detections(found["boxes"][image], found["scores"][image], found["labels"][image])
        pairs.append(of_detections(detections, ranked, boxes[image], scores[image], ids, bar, once))
    return pairs


def of_queries(boxes: Tensor, scores: Tensor, wanted: Tensor, wanted_scores: Tensor, bar: Bar) -> tuple[float, float]:
    """The largest difference of the boxes ``[Q, 4]`` and of the scores ``[Q, K]`` of an image.

    A detector that ranks its queries may rank two of them the other way round by rounding; so those that differ are
    paired anew among themselves.
    """
    boxes_apart, scores_apart = (boxes - wanted).abs().amax(-1), (scores - wanted_scores).abs().amax(-1)  # [Q]
    moved = (boxes_apart > bar.boxes) | (scores_apart > bar.scores)
    if moved.any():
        each = torch.cdist(boxes[moved], wanted[moved], p=torch.inf)
        every = torch.cdist(scores[moved], wanted_scores[moved], p=torch.inf)
        costs = (each / max(bar.boxes, 1e-9) + every / max(bar.scores, 1e-9)).nan_to_num()
        row, column = (torch.from_numpy(index) for index in linear_sum_assignment(costs))
        places = moved.nonzero()[:, 0][column]
        boxes_apart[places], scores_apart[places] = each[row, column], every[row, column]
    best = wanted_scores.amax(-1)
    counted = best >= min(bar.above, best.max().item())
    return largest(boxes_apart[counted]), largest(scores_apart[counted])


def of_detections(
    found: Detections, ranked: Tensor, boxes: Tensor, scores: Tensor, ids: Tensor, bar: Bar, once: bool
) -> tuple[float, float]:
    """The largest differences of the boxes and of the scores of an image's detections from torch's.

    By rounding, a detector may rank two detections the other way round, or take another of those that are equal at its
    limit. So each is looked up among all of torch's queries under the label that it has, and the score of each rank
    is compared with torch's.

    Args:
        found: what the file chose, best first, with boxes in the frame of ``boxes``.
        ranked: ``[N]`` scores of what torch chose, best first.
        boxes, scores: ``[Q, 4]`` and ``[Q, K]`` torch's queries.
        ids: ``[K]`` the label of each column.
        bar: what counts.
        once: whether a query gives one detection, not one of each label.
    """
    least = min(bar.above, ranked.max().item())
    under = (found.labels[:, None] == ids).to(scores) @ scores.T  # [N, Q] torch's scores of the label that was found
    boxes_apart = torch.cdist(found.boxes, boxes, p=torch.inf)  # [N, Q]
    scores_apart = (found.scores[:, None] - under).abs()
    costs = (boxes_apart / max(bar.boxes, 1e-9) + scores_apart / max(bar.scores, 1e-9)).nan_to_num()
    pairs = [(0.0, largest((found.scores - ranked)[ranked >= least]))]
    compared = ~(found.scores < least)  # as NaN is
    groups = torch.zeros_like(found.labels) if once else found.labels  # in which a query occurs once
    for group in set(groups[compared].tolist()):
        rows = (compared & (groups == group)).nonzero()[:, 0]
        row, query = (torch.from_numpy(index) for index in linear_sum_assignment(costs[rows]))
        place = rows[row], query
        counted = under[place] >= least
        pairs.append((largest(boxes_apart[place][counted]), largest(scores_apart[place])))
        if len(row) < len(rows):  # some are of no query
            pairs.append((torch.inf, torch.inf))
    return worst(*(pair[0] for pair in pairs)), worst(*(pair[1] for pair in pairs))


def worst(*values: float) -> float:
    """The largest of several, NaN where one is, which ``max`` overlooks."""
    return torch.tensor(values, dtype=torch.float64).max().item()


def largest(values: Tensor) -> float:
    """The largest magnitude, NaN where one is; 0 of none."""
    return values.abs().max().item() if values.numel() else 0.0
