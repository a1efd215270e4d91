"""The final choice: which boxes of which categories a detector returns in the end."""

from dataclasses import dataclass
from typing import Literal, NamedTuple

from torch import Tensor
from torchvision.ops import batched_nms

from refinebox.detection.voting import voted

Rule = Literal["pairs", "queries", "suppression"]


@dataclass(frozen=True)
class Choice:
    """How detections are chosen from the scores and the boxes of all queries.

    Attributes:
        rule: ``pairs`` takes the best (query, category) pairs; ``queries`` every query with its best category;
            ``suppression`` the best pairs of which none overlaps a better one of its category.
        limit: detections in an image, of ``pairs`` and ``suppression``.
        above: only pairs with a score above this take part.
        iou: overlap above which ``suppression`` drops the lower score.
        candidates: best pairs that take part in ``suppression``.
        voting: IoU from which they move what ``suppression`` keeps of their category to where they say; 0 for none.
    """

    rule: Rule = "pairs"
    limit: int = 300
    above: float = -1.0
    iou: float = 0.5
    candidates: int = 10_000
    voting: float = 0.0


class Chosen(NamedTuple):
    """Detections of one image in the order returned.

    ``query`` and ``column`` are ``[N]`` int64, ``score`` ``[N]``, ``boxes`` ``[N, 4]`` xyxy in pixels.
    """

    query: Tensor
    column: Tensor
    score: Tensor
    boxes: Tensor


def choose(choice: Choice, scores: Tensor, boxes: Tensor) -> Chosen:
    """The detections of one image.

    Args:
        choice: the rule.
        scores: ``[Q, K]``.
        boxes: ``[Q, 4]`` xyxy in pixels, where they are in the end: suppression looks at moved boxes.
    """
    columns = scores.shape[-1]
    if choice.rule == "queries":
        score, column = scores.max(-1)  # [Q]
        kept = (score > choice.above).nonzero()[:, 0]
        return Chosen(kept, column[kept], score[kept], boxes[kept])
    limit = choice.limit if choice.rule == "pairs" else choice.candidates
    flat = scores.flatten()  # [Q * K]
    if choice.above < 0:
        score, index = flat.topk(min(limit, len(flat)))
    else:  # most pairs are out; among the others equal scores keep their order, which decides AP
        index = (flat > choice.above).nonzero()[:, 0]
        index = index[flat[index].sort(descending=True, stable=True).indices[:limit]]
        score = flat[index]
    query, column = index // columns, index % columns
    boxes = boxes[query]  # [N, 4]
    if choice.rule == "suppression":
        kept = batched_nms(boxes, score, column, choice.iou)[: choice.limit]
        boxes = voted(boxes, score, column, kept, choice.voting) if choice.voting else boxes[kept]
        query, column, score = query[kept], column[kept], score[kept]
    return Chosen(query, column, score, boxes)
