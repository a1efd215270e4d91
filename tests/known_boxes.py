"""A few detections of which every answer is known."""

from pathlib import Path

import numpy as np

from refinebox.data.annotations import CocoData

TRUTH = CocoData(
    images=[{"id": 1, "file_name": "1.png", "width": 200, "height": 200}],
    annotations=[
        {"id": n, "image_id": 1, "category_id": category, "bbox": box, "area": 400.0, "iscrowd": 0}
        for n, (category, box) in enumerate(
            [(1, [0, 0, 20, 20]), (2, [50, 50, 20, 20]), (1, [150, 0, 20, 20])], start=1
        )
    ],
    categories={1: "cup", 2: "bowl"},
    folder=Path(),
    notes={},
)
ROWS = np.array(
    [
        [1, 0, 0, 20, 16, 0.9, 1],  # on the first object, IoU 0.8
        [1, 0, 0, 20, 19, 0.8, 1],  # again, and better placed
        [1, 0, 0, 20, 12, 0.7, 1],  # again, and worse
        [1, 50, 50, 20, 20, 0.6, 1],  # on the second, of the wrong category
        [1, 50, 50, 20, 6, 0.5, 2],  # on the second, IoU 0.3
        [1, 100, 100, 20, 20, 0.4, 2],  # on nothing
    ]
)
