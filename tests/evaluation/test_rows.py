"""From detections to result rows and COCO's results."""

import contextlib
import io

import numpy as np
import torch
from pycocotools.coco import COCO

from refinebox.data.annotations import CocoData
from refinebox.detection.output import Detections
from refinebox.evaluation.link import Link
from refinebox.evaluation.rows import to_results, to_rows


def test_rows_are_written_with_the_ids_of_the_data() -> None:
    link = Link(data_ids={4: 40, 1: 7}, columns={40: 3, 7: 0}, width=6)
    first = Detections(
        torch.tensor([[1.0, 2.0, 11.0, 22.0], [0.0, 0.0, 5.0, 5.0], [-3.0, 4.0, 1.0, 5.0]]),
        torch.tensor([0.75, 0.5, 0.25]),
        torch.tensor([4, 2, 1]),
    )
    second = Detections(torch.tensor([[6.0, 6.0, 8.0, 7.0]]), torch.tensor([0.125]), torch.tensor([1]))
    rows = to_rows([first, second], [17, 3], link)
    assert rows.dtype == np.float64
    assert rows.tolist() == [
        [17, 1, 2, 10, 20, 0.75, 40],
        [17, -3, 4, 4, 1, 0.25, 7],
        [3, 6, 6, 2, 1, 0.125, 7],
    ]


def test_nothing_found_gives_no_rows() -> None:
    nothing = Detections(torch.zeros(0, 4), torch.zeros(0), torch.zeros(0, dtype=torch.int64))
    link = Link(data_ids={1: 1}, columns={1: 0}, width=1)
    assert to_rows([nothing], [1], link).shape == (0, 7)
    assert to_rows([], [], link).shape == (0, 7)


def test_large_image_ids_are_not_rounded() -> None:
    found = Detections(torch.tensor([[0.0, 0.0, 1.0, 1.0]]), torch.tensor([0.5]), torch.tensor([1]))
    rows = to_rows([found], [900_100_581_929], Link(data_ids={1: 1}, columns={1: 0}, width=1))
    assert to_results(rows)[0]["image_id"] == 900_100_581_929


def test_results_are_in_cocos_format() -> None:
    results = to_results(np.array([[17, 1.00049, 2, 10, 20.12351, 0.12345678, 40]]))
    assert results == [{"image_id": 17, "category_id": 40, "bbox": [1.0, 2.0, 10.0, 20.124], "score": 0.123457}]
    assert [type(results[0][key]) for key in ("image_id", "category_id")] == [int, int]


def test_pycocotools_reads_the_results(validation: CocoData) -> None:
    annotations = validation.annotations[:5]
    rows = np.array([[entry["image_id"], *entry["bbox"], 0.5, entry["category_id"]] for entry in annotations])
    with contextlib.redirect_stdout(io.StringIO()):
        ground = COCO()
        ground.dataset = validation.coco()
        ground.createIndex()
        found = ground.loadRes(to_results(rows))
    assert [entry["bbox"] for entry in found.dataset["annotations"]] == [entry["bbox"] for entry in annotations]
