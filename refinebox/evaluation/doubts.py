"""What makes the figures of a live detector doubtful, in sentences for people."""

import numpy as np

from refinebox.data.annotations import LIMIT, CocoData
from refinebox.data.categories import unlike
from refinebox.detection.detector import Detector
from refinebox.evaluation.link import Link
from refinebox.evaluation.plausibility import mistakes
from refinebox.evaluation.rows import Rows, top
from refinebox.refinement.change import decided, deciding
from refinebox.refinement.refined_detector import RefinedDetector


def doubts(detector: Detector, data: CocoData, link: Link, rows: Rows) -> list[str]:
    """What is odd about the ``[N, 7]`` detections of a detector in ``data``; nothing where all is well."""
    found = beforehand(detector, data, link)
    beyond = len(rows) - int(top(rows, LIMIT, each_category=True).sum())
    if beyond:
        found.append(
            f"{beyond:,} detections are beyond the best {LIMIT} of a category in an image; COCO counts no more of them"
        )
    return found + [mistake.sentence for mistake in mistakes(rows, data)]


def no_measure(detector: Detector, data: CocoData) -> str | None:
    """Why AP in ``data`` does not measure what the refiner of an upgraded detector gains; None where it does."""
    if not isinstance(detector, RefinedDetector):
        return None
    digest, origins = data.origin().get("sha256"), detector.history.get("data") or {}
    had = [split for split in ("train", "val") if digest and (origins.get(split) or {}).get("sha256") == digest]
    if not had:
        return None
    what = "the refiner learned from these images" if "train" in had else "these images chose the epoch"
    choice = detector.history.get("choice") or {}
    other = choice and choice.get("known") is None  # else validation images decided, which chose the epoch too
    return f"{what}, so this measures no gain{f'; {deciding(choice)} say {decided(choice)}' if other else ''}"


def beforehand(detector: Detector, data: CocoData, link: Link) -> list[str]:
    """What can be said before anything is detected: categories of other names, more objects than can be found."""
    strange = named_otherwise(detector, data, link)
    return ([strange] if strange else []) + crowded(detector, data)


def named_otherwise(detector: Detector, data: CocoData, link: Link) -> str | None:
    """That no category is called as the detector calls it, where they were matched by id or order."""
    names = {
        data_id: detector.category_names[detector_id]
        for detector_id, data_id in link.data_ids.items()
        if detector_id in detector.category_names
    }
    return unlike({data_id: data.categories[data_id] for data_id in names}, names)


def crowded(detector: Detector, data: CocoData) -> list[str]:
    """Of images that hold more objects than a detector of queries can find."""
    if detector.profile.final.rule == "suppression" or not detector.candidates:
        return []
    _, counts = np.unique([entry["image_id"] for entry in data.annotations if not entry["iscrowd"]], return_counts=True)
    limit = detector.candidates
    more = counts > limit
    if not more.any():
        return []
    return [
        f"{int(more.sum())} images have more objects than the {limit} queries of the detector, which cannot find "
        f"{int((counts - limit)[more].sum()):,} of {int(counts.sum()):,} objects"
    ]
