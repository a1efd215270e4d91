"""LVIS' evaluation against its authors' own."""

import json
import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from random_boxes import CATEGORIES, draw_data, draw_rows

from refinebox.data import annotations
from refinebox.data.annotations import CocoData
from refinebox.evaluation.backends import Backend, FasterCocoEval, Hotcoco
from refinebox.evaluation.evaluator import Evaluator
from refinebox.evaluation.rows import Rows, to_results

FREQUENCIES = {2: "r", 5: "c", 90: "f"}


def draw_lvis(seed: int) -> tuple[CocoData, Rows]:
    """Federated annotations: a category is looked for in some images only, and not always to the last object."""
    random = np.random.default_rng(seed)
    drawn = draw_data(random, images=10)
    rows = draw_rows(random, drawn)
    rows[:, 5] = random.permutation(len(rows)) / len(rows)  # which of equal scores are the best 300 is not defined
    present = {(entry["image_id"], entry["category_id"]) for entry in drawn.annotations}
    images = []
    for entry in drawn.images:
        absent = [c for c in CATEGORIES if (entry["id"], c) not in present and random.random() < 0.7]
        partial = [c for c in CATEGORIES if (entry["id"], c) in present and random.random() < 0.3]
        images.append({**entry, "neg_category_ids": absent, "not_exhaustive_category_ids": partial})
    annotations = [{**entry, "iscrowd": 0} for entry in drawn.annotations]
    return replace(drawn, images=images, annotations=annotations, frequencies=FREQUENCIES), rows


def content(truth: CocoData) -> dict[str, Any]:
    found = truth.coco()
    categories = [{**entry, "frequency": FREQUENCIES[entry["id"]]} for entry in found["categories"]]
    return {**found, "categories": categories}


def reference(truth: CocoData, rows: Rows, path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, float]:
    """What the LVIS authors' evaluation says."""
    lvis = pytest.importorskip("lvis", reason="lvis is not installed: pip install lvis")
    logging.getLogger("lvis").setLevel(logging.ERROR)
    monkeypatch.setattr(np, "float", float, raising=False)  # which it still uses
    monkeypatch.setattr(logging.Logger, "warn", lambda *_: None, raising=False)
    path.write_text(json.dumps(content(truth)))
    ground = lvis.LVIS(str(path))
    evaluation = lvis.LVISEval(ground, lvis.LVISResults(ground, to_results(rows)), "bbox")
    evaluation.run()
    return dict(evaluation.get_results())


@pytest.mark.parametrize("backend", [Hotcoco, FasterCocoEval])
@pytest.mark.parametrize("seed", range(3))
def test_ap_is_that_of_the_authors(
    seed: int, backend: type[Backend], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    truth, rows = draw_lvis(seed)
    rows = np.round(rows, 3)
    found = Evaluator(truth, lvis=True, backend=backend)(rows).metrics
    expected = reference(truth, rows, tmp_path / "lvis.json", monkeypatch)
    assert list(found) == ["AP", "AP50", "AP75", "APs", "APm", "APl", "AR", "APr", "APc", "APf"]
    for name, value in found.items():
        assert value == pytest.approx(100 * expected["AR@300" if name == "AR" else name], abs=1e-9), name
    assert found["AP"] != Evaluator(truth)(rows).metrics["AP"]


def test_what_lvis_adds_is_read(tmp_path: Path) -> None:
    truth, _ = draw_lvis(0)
    written = content(truth)
    for entry in written["images"]:
        entry["coco_url"] = f"http://images.example/val2017/{entry.pop('file_name')}"
    path = tmp_path / "lvis.json"
    path.write_text(json.dumps(written))
    found = annotations.read(path, tmp_path, images_needed=False)
    assert found.frequencies == FREQUENCIES
    assert found.images[0]["file_name"] == "val2017/1.png"
    assert found.images[0]["neg_category_ids"] == truth.images[0]["neg_category_ids"]


def test_annotations_of_coco_are_refused() -> None:
    truth = draw_data(np.random.default_rng(0))
    with pytest.raises(ValueError, match=r"^category 'cup' has no frequency r, c or f; leave out --lvis for COCO ann"):
        Evaluator(truth, lvis=True)
    with pytest.raises(ValueError, match=r"^image 1 has no 'neg_category_ids'; leave out --lvis for COCO annotations$"):
        Evaluator(replace(truth, frequencies=FREQUENCIES), lvis=True)
