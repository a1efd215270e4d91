"""What a detector returns in the end for an image, and where each of these boxes was before it was refined."""

from collections.abc import Mapping
from dataclasses import replace

import torch
from PIL import Image
from torch import Tensor
from torchvision.ops import box_convert

from refinebox.detection.detector import Detector
from refinebox.detection.output import Detections


def returned_of(
    detector: Detector, found: Mapping[str, Detections], image: Image.Image, least: float = 0.0
) -> dict[str, Detections]:
    """The detections that the detector returns in the end, as far as they reach the score ``least``.

    Args:
        detector: that found them.
        found: ``before`` and, of an upgraded detector, ``after``, row by row the same detections.
        image: in which they are.
        least: lowest score.

    Returns:
        Of those that are left, again ``before`` and perhaps ``after``: the boxes of the last are those returned, and
        of the first those that were refined.
    """
    final = detector.finish(found.get("after", found["before"]), (image.height, image.width))
    final = those(final, final.scores >= least)
    if "after" not in found:
        return {"before": final}
    places = {pair: place for place, pair in enumerate(pairs(found["after"]))}
    rows = torch.tensor([places[pair] for pair in pairs(final)], dtype=torch.int64, device=final.boxes.device)
    return {"before": replace(final, boxes=found["before"].boxes[rows]), "after": final}


def pairs(detections: Detections) -> list[tuple[int, int]]:
    """The (query, label) of every detection, of which there are no two in an image."""
    assert detections.queries is not None  # select says them
    return list(zip(detections.queries.tolist(), detections.labels.tolist(), strict=True))


def those(detections: Detections, rows: Tensor) -> Detections:
    """The detections whose place in ``rows``, ``[N]`` bool, is true."""
    queries = None if detections.queries is None else detections.queries[rows]
    return Detections(detections.boxes[rows], detections.scores[rows], detections.labels[rows], queries)


def fractions(boxes: Tensor, image: Image.Image) -> list[list[float]]:
    """Boxes ``[N, 4]`` xyxy in pixels as (x, y, width, height), fractions of the image to six digits."""
    sides = boxes.new_tensor([image.width, image.height] * 2)
    relative: Tensor = box_convert(boxes, "xyxy", "xywh") / sides  # [N, 4]
    return [[round(value, 6) for value in box] for box in relative.tolist()]
