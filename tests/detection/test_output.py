"""Detections as supervision's, and back."""

import sys

import numpy as np
import pytest
import torch

from refinebox.detection.detector import Detector
from refinebox.detection.output import Detections

FOUND = Detections(
    torch.tensor([[1.5, 2.0, 30.25, 40.0], [-3.0, 0.0, 5.0, 6.0]]),
    torch.tensor([0.9, 0.25]),
    torch.tensor([3, 70]),
    torch.tensor([11, 4]),
)
NOTHING = Detections(
    torch.zeros(0, 4), torch.zeros(0), torch.zeros(0, dtype=torch.int64), torch.zeros(0, dtype=torch.int64)
)


def same(one: Detections, two: Detections) -> bool:
    fields = [(one.boxes, two.boxes), (one.scores, two.scores), (one.labels, two.labels)]
    both = one.queries is not None and two.queries is not None
    queries = torch.equal(one.queries, two.queries) if both else one.queries is two.queries  # type: ignore[arg-type]
    return queries and all(a.dtype == b.dtype and torch.equal(a, b) for a, b in fields)


@pytest.fixture(scope="module")
def _supervision() -> None:
    pytest.importorskip("supervision", reason="supervision is not installed; pip install -e '.[test]'")


@pytest.mark.usefixtures("_supervision")
def test_supervision_has_the_same() -> None:
    found = FOUND.to_supervision({3: "cat", 4: "dog"})
    assert type(found).__module__.startswith("supervision")
    assert found.xyxy.tolist() == FOUND.boxes.tolist()
    assert found.confidence.tolist() == FOUND.scores.tolist()
    assert found.class_id.tolist() == [3, 70]
    assert found.data["class_name"].tolist() == ["cat", "70"]
    assert found[found.class_id == 70].data["query"].tolist() == [4]
    assert "class_name" not in FOUND.to_supervision().data


@pytest.mark.usefixtures("_supervision")
@pytest.mark.parametrize("detections", [FOUND, NOTHING], ids=["some", "none"])
def test_the_way_back_changes_nothing(detections: Detections) -> None:
    assert same(Detections.from_supervision(detections.to_supervision({3: "cat"})), detections)
    bare = Detections(detections.boxes, detections.scores, detections.labels)
    assert same(Detections.from_supervision(bare.to_supervision()), bare)


@pytest.mark.usefixtures("_supervision")
def test_what_supervision_makes_itself_is_read() -> None:
    import supervision

    assert same(
        Detections.from_supervision(supervision.Detections.empty()),
        Detections(NOTHING.boxes, NOTHING.scores, NOTHING.labels),
    )
    suppressed = FOUND.to_supervision().with_nms(threshold=0.5)
    assert Detections.from_supervision(suppressed).labels.tolist() == [3, 70]
    double = supervision.Detections(np.zeros((1, 4)), confidence=np.ones(1), class_id=np.ones(1, np.int32))
    assert Detections.from_supervision(double).boxes.dtype == torch.float32


@pytest.mark.usefixtures("_supervision")
def test_boxes_without_scores_are_no_detections() -> None:
    import supervision

    expected = r"^these detections of supervision have no confidence and no class_id; expected a score and a category"
    with pytest.raises(ValueError, match=expected):
        Detections.from_supervision(supervision.Detections(np.zeros((1, 4))))


@pytest.mark.usefixtures("_supervision")
def test_predictions_go_to_supervision(detector: Detector) -> None:
    from PIL import Image

    [found] = detector.predict([Image.linear_gradient("L").convert("RGB")])
    theirs = found.to_supervision(detector.category_names)
    assert len(theirs) == len(found.scores) > 0
    assert set(theirs.data["class_name"]) <= set(detector.category_names.values())


def test_without_supervision_its_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "supervision", None)
    expected = r"^supervision is needed for to_supervision and cannot .*; run: pip install 'refinebox\[supervision\]'$"
    with pytest.raises(ValueError, match=expected):
        FOUND.to_supervision()
