"""A COCO results file of any detector, read and checked."""

from pathlib import Path

from refinebox.data import results_file
from refinebox.data.annotations import CocoData
from refinebox.evaluation.garbage import collection_paused
from refinebox.evaluation.rows import Rows, check_rows


@collection_paused()
def read_results(path: Path, data: CocoData) -> Rows:
    """``[N, 7]`` rows of image id, x, y, width, height (pixels), score and category id, in the file's order.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is not in COCO's results format, a number in it is not finite, or it names an image or
            category that ``data`` does not have; the message says where.
    """
    entries = results_file.read_entries(path)
    images = results_file.image_ids(entries, data)
    unknown = list(
        dict.fromkeys(results_file.named(entry) for entry, image in zip(entries, images, strict=True) if image is None)
    )
    if unknown:
        raise ValueError(
            f"{path}: detections name image ids that the data does not have: {', '.join(unknown[:5])}; "
            "is it of these annotations?"
        )
    rows = results_file.rows(entries, [image for image in images if image is not None])
    try:
        check_rows(data, rows)
    except ValueError as error:
        raise ValueError(f"{path}: {error}; is it of these annotations?") from error
    return rows
