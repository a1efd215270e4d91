"""LVIS' evaluation against its authors' own."""

import json
import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from random_boxes import FREQUENCIES, draw_data, draw_lvis

from refinebox.data import annotations
from refinebox.data.annotations import FEDERATED, CocoData
from refinebox.evaluation.backends import Backend, FasterCocoEval, Hotcoco
from refinebox.evaluation.bootstrap import Resampled, difference
from refinebox.evaluation.evaluator import Evaluator
from refinebox.evaluation.overlaps import Objects
from refinebox.evaluation.rows import Rows, to_results


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


@pytest.mark.parametrize("seed", range(3))
def test_the_bootstrap_resamples_that_ap(seed: int) -> None:
    truth, rows = draw_lvis(seed)
    images = np.array([entry["id"] for entry in truth.images])
    resampled = Resampled(rows, Objects.of(truth, lvis=True), images)
    expected = Evaluator(truth, lvis=True)(rows).metrics["AP"]
    assert resampled.ap(np.ones(len(images), dtype=np.int64)) == pytest.approx(expected, abs=1e-9)
    assert expected != Evaluator(truth)(rows).metrics["AP"]
    shifted = rows + np.array([0, 4, 4, 0, 0, 0, 0])
    found = difference(truth, shifted, rows, lvis=True, resamples=30)
    assert found != difference(truth, shifted, rows, resamples=30)


@pytest.mark.parametrize("backend", [Hotcoco, FasterCocoEval])
def test_categories_that_are_not_listed_are_looked_for_by_nobody(backend: type[Backend]) -> None:
    truth, rows = draw_lvis(0)
    images = [{**entry, "neg_category_ids": [*entry["neg_category_ids"], 1, 40, 1203]} for entry in truth.images]
    more = replace(truth, images=images)
    found, expected = (Evaluator(data, lvis=True, backend=backend)(rows).metrics for data in (more, truth))
    assert found == pytest.approx(expected, abs=1e-9)


def test_ids_of_every_kind_say_what_was_looked_for(tmp_path: Path) -> None:
    """Names, text and numbers that are not listed; what is no list is left out and told."""
    truth, rows = draw_lvis(0)
    written = json.loads(json.dumps(content(truth)))
    for entry in (*written["categories"], *written["annotations"]):
        field = "id" if "name" in entry else "category_id"
        entry[field] = f"c{entry[field]}"
    for entry in written["images"]:
        for field in FEDERATED:
            entry[field] = [f"c{number}" for number in entry[field]]
    written["images"][0]["neg_category_ids"].append("c7")
    path = tmp_path / "lvis.json"
    path.write_text(json.dumps(written))
    found = annotations.read(path, tmp_path, images_needed=False)
    assert "1 neg_category_ids of categories that are not listed, such as 'c7'" in found.summary()
    renumbered = rows.copy()
    renumbered[:, 6] = [list(FREQUENCIES).index(int(row[6])) + 1 for row in rows]
    metrics, expected = (Evaluator(*each, lvis=True) for each in ((found,), (truth,)))
    assert metrics(renumbered).metrics == pytest.approx(expected(rows).metrics, abs=1e-9)
    written["images"][0]["neg_category_ids"] = "c7"
    path.write_text(json.dumps(written))
    found = annotations.read(path, tmp_path, images_needed=False)
    assert "1 neg_category_ids that are no lists, such as c7" in found.summary()
    with pytest.raises(ValueError, match=r"^image 1 has no 'neg_category_ids'; leave out --lvis for COCO annotations$"):
        Evaluator(found, lvis=True)


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
