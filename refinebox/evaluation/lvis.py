"""What LVIS adds to COCO's annotations: how rare each category is, and what was looked for in each image."""

import numpy as np
from numpy.typing import NDArray

from refinebox.data.annotations import FEDERATED, CocoData
from refinebox.evaluation.rows import Bools, Ints, Rows

GROUPS = {"r": "APr", "c": "APc", "f": "APf"}  # LVIS' frequencies: in at most 10, at most 100, more training images


def frequency_groups(data: CocoData) -> dict[str, list[int]]:
    """Category ids of LVIS' rare, common and frequent categories, by the name of their AP.

    Raises:
        ValueError: a category has no frequency, or an image does not say which categories were looked for in it.
    """
    unknown = [name for category_id, name in data.categories.items() if data.frequencies.get(category_id) not in GROUPS]
    if unknown:
        raise ValueError(f"category {unknown[0]!r} has no frequency r, c or f; leave out --lvis for COCO annotations")
    for field in FEDERATED:
        lacking = [entry["id"] for entry in data.images if field not in entry]
        if lacking:
            raise ValueError(f"image {lacking[0]} has no {field!r}; leave out --lvis for COCO annotations")
    return {
        name: [category_id for category_id, frequency in data.frequencies.items() if frequency == letter]
        for letter, name in GROUPS.items()
    }


class Federated:
    """Which categories were looked for in each image, to the last object (Gupta et al. 2019, section 2.3).

    They are in the image and all annotated, or known not to be in it. A detection of another category that finds
    nothing may be right, so it counts neither way.
    """

    def __init__(self, data: CocoData) -> None:
        self.images = np.unique(np.array([entry["id"] for entry in data.images], dtype=np.int64))
        self.categories = np.unique(np.array(list(data.categories), dtype=np.int64))
        self.looked_for = np.zeros((len(self.images), len(self.categories)), dtype=np.bool_)
        absent, partial = (
            [(entry["id"], category) for entry in data.images for category in entry[field]] for field in FEDERATED
        )
        present = [(entry["image_id"], entry["category_id"]) for entry in data.annotations]
        for pairs, known in ((present + absent, True), (partial, False)):
            self.looked_for[self._places(np.array(pairs, dtype=np.int64).reshape(-1, 2))] = known

    def excused(self, rows: Rows) -> Bools:
        """``[N]`` which detections ``[N, 7]`` are of categories that were not looked for, or not to the last object."""
        excused: Bools = ~self.looked_for[self._places(rows[:, [0, 6]].astype(np.int64))]
        return excused

    def _places(self, pairs: NDArray[np.int64]) -> tuple[Ints, Ints]:
        """Of ``[P, 2]`` image and category ids."""
        return np.searchsorted(self.images, pairs[:, 0]), np.searchsorted(self.categories, pairs[:, 1])
