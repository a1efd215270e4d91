"""One image through a detector: what it returns in the end, and where each of these boxes was before refinement."""

from collections.abc import Mapping
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torchvision.ops import box_convert

from refinebox.boxes import to_pixels
from refinebox.data.batches import Batch
from refinebox.data.images import read_image
from refinebox.data.proposals import Found
from refinebox.detection.detector import Detector
from refinebox.detection.output import Detections
from refinebox.evaluation.detect import stages
from refinebox.report.columns import empty_row


def row_of(
    detector: Detector, image_id: Any, file: Path | BytesIO, least: float, given: Found | None = None
) -> dict[str, Any]:
    """An image as a row of :data:`~refinebox.report.columns.COLUMNS`; one that cannot be read says why, and no more.

    Args:
        detector: that looks at it.
        image_id: what it is called.
        file: where it is, or its content.
        least: lowest score of a detection.
        given: boxes, for a detector that takes them.
    """
    row = empty_row(image_id)
    try:
        image = read_image(file)
    except (ValueError, OSError) as error:
        return {**row, "error": str(error)}
    returned = returned_of(detector, detect_image(detector, image, given), image, least)
    final = list(returned.values())[-1]
    moved = (final.boxes - returned["before"].boxes).abs().amax(1)  # [N]
    found = {"boxes": final.boxes, "scores": final.scores, "labels": final.labels, "moved": moved}
    return {**row, "width": image.width, "height": image.height, **{name: x.tolist() for name, x in found.items()}}


def detect_image(detector: Detector, image: Image.Image, given: Found | None = None) -> dict[str, Detections]:
    """``after`` as a refined detector chooses, and ``before``: the same queries where they were; or that alone."""
    device = next(detector.parameters()).device
    images, sizes = detector.profile.input.pad([detector.preprocess(image)])
    proposals = None if given is None else given.within(image.height, image.width)
    batch = Batch(images, sizes, torch.tensor([[image.height, image.width]]), [], [], proposals=proposals).to(device)
    found = stages(detector, batch)
    last = found.get("after", found["before"])
    [chosen] = detector.select(detector.scores_of(last), last.boxes, batch.original_sizes)
    if "after" not in found and not detector.profile.final.voting:
        return {"before": chosen}
    unmoved = to_pixels(found["before"].boxes, batch.original_sizes)[0, chosen.queries]
    return {"before": replace(chosen, boxes=unmoved), "after": chosen}


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
