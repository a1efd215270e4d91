"""What makes the figures of a live detector doubtful, in sentences for people."""

import numpy as np

from refinebox.data.annotations import LIMIT, CocoData
from refinebox.data.categories import unlike
from refinebox.detection.detector import Detector
from refinebox.evaluation.link import Link
from refinebox.evaluation.plausibility import mistakes
from refinebox.evaluation.rows import Rows, top


def doubts(detector: Detector, data: CocoData, link: Link, rows: Rows) -> list[str]:
    """What is odd about the ``[N, 7]`` detections of a detector in ``data``; nothing where all is well."""
    names = {
        data_id: detector.category_names[detector_id]
        for detector_id, data_id in link.data_ids.items()
        if detector_id in detector.category_names
    }
    found = [sentence] if (sentence := unlike({key: data.categories[key] for key in names}, names)) else []
    found += crowded(detector, data)
    beyond = len(rows) - int(top(rows, LIMIT, each_category=True).sum())
    if beyond:
        found.append(
            f"{beyond:,} detections beyond the best {LIMIT} of a category in an image, which COCO does not count"
        )
    return found + [mistake.sentence for mistake in mistakes(rows, data)]


def crowded(detector: Detector, data: CocoData) -> list[str]:
    """Of images that hold more objects than the detector can find."""
    _, counts = np.unique([entry["image_id"] for entry in data.annotations if not entry["iscrowd"]], return_counts=True)
    limit = detector.candidates
    more = counts > limit
    if not more.any():
        return []
    return [
        f"{int(more.sum())} images have more objects than the {limit} queries of the detector, which cannot find "
        f"{int((counts - limit)[more].sum()):,} of {int(counts.sum()):,} objects"
    ]
