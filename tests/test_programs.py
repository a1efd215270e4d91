"""What docs/scale.md and docs/integrations.md show of other programs, which are stood in for where they are large."""

import json
import sys
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import pytest
from documents import BLOCKS
from invocation import done
from invocation import run as typed
from PIL import Image

from refinebox.detection.detector import Detector
from refinebox.detection.zoo import describe
from refinebox.files import checkpoint
from refinebox.report.batch import COLUMNS, Refine


def block(document: str, word: str) -> str:
    """The Python block of a document that has the word in it."""
    (found,) = [
        block.code
        for block in BLOCKS
        if block.language == "python" and block.place.startswith(f"docs/{document} ") and word in block.code
    ]
    return found.replace("/shared/", "")


def run(code: str, **names: Any) -> dict[str, Any]:
    exec(compile(code, "document", "exec"), names)
    return names


@pytest.fixture(autouse=True)
def _files(detector: Detector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the documents name, in the folder where the test is."""
    described = {"kind": "detector", "detector": describe(detector)}
    checkpoint.write(tmp_path / "better.safetensors", detector.tensors(), described)
    monkeypatch.chdir(tmp_path)
    Path("photos").mkdir()
    Image.linear_gradient("L").convert("RGB").resize((64, 48)).save("photos/1.jpg")
    Image.new("RGB", (64, 48), "red").save("photo.jpg")


def test_a_loop_calls_refine() -> None:
    names = run(block("scale.md", "found ="))
    assert names["found"]["image_id"] == ["photos/1.jpg", "photos/2.jpg"]
    assert names["found"]["error"] == [None, f"{Path('photos/2.jpg')} is not there"]


def test_parts_are_read_as_a_table() -> None:
    pytest.importorskip("pyarrow", reason="pyarrow is not installed; pip install -e '.[test]'")
    Path("photos/broken.jpg").write_text("no image")
    result = typed("predict", "better.safetensors", "photos", "--format", "parquet", "--output", "detections")
    assert result.exit_code == 0, result.output
    names = run(block("scale.md", "count_rows"))
    assert names["detections"].count_rows() == 2
    assert names["broken"]["image_id"].to_pylist() == ["broken.jpg"]


def test_ray_is_given_what_refine_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    """A real cluster is in report/test_batch_on_ray.py."""
    ray = MagicMock()
    monkeypatch.setitem(sys.modules, "ray", ray)
    run(block("scale.md", "import ray"))
    called = ray.data.read_binary_files.return_value.map_batches.call_args
    assert called.args == (Refine,)
    refine = called.args[0](**called.kwargs["fn_constructor_kwargs"])
    assert refine({"bytes": [Path("photo.jpg").read_bytes()], "path": ["bucket/photo.jpg"]})["error"] == [None]


def test_spark_gets_frames_of_its_schema() -> None:
    arrow, pandas = (pytest.importorskip(name, reason="pip install -e '.[test]'") for name in ("pyarrow", "pandas"))
    spark = MagicMock()
    names = run(block("scale.md", "mapInPandas"), spark=spark, Refine=Refine)
    (function, schema) = names["files"].mapInPandas.call_args.args
    assert tuple(column.split()[0] for column in schema.split(", ")) == COLUMNS
    frames = [pandas.DataFrame({"path": [name], "bytes": [b"no image"]}) for name in "ab"]
    found = [arrow.Table.from_pandas(frame) for frame in function(iter(frames))]
    assert [table["image_id"].to_pylist() for table in found] == [["a"], ["b"]]


def test_fiftyone_gets_before_and_after(detector: Detector, monkeypatch: pytest.MonkeyPatch) -> None:
    done("predict", "better.safetensors", "photo.jpg")
    rows = json.loads(Path("predictions/results.json").read_text())
    for row in rows:
        row["after"] = row["before"]  # as of an upgraded detector
    Path("predictions/results.json").write_text(json.dumps(rows))
    fiftyone = MagicMock()
    fiftyone.Detection.side_effect = dict
    monkeypatch.setitem(sys.modules, "fiftyone", fiftyone)
    run(block("integrations.md", "fiftyone"))
    fiftyone.Sample.assert_called_once_with("photo.jpg")
    before, after = (call.kwargs["detections"] for call in fiftyone.Detections.call_args_list)
    assert len(before) == len(rows) == 12 * 6
    assert before == after
    assert before[0] == {
        "label": detector.category_names[rows[0]["category_id"]],
        "bounding_box": rows[0]["before"],
        "confidence": rows[0]["score"],
    }


def test_supervision_draws_detections() -> None:
    pytest.importorskip("supervision", reason="supervision is not installed; pip install -e '.[test]'")
    names = run(block("integrations.md", "supervision"))
    assert len(names["detections"]) == len(names["found"].scores) > 0
    assert names["annotated"].size == (64, 48)
    assert names["annotated"].tobytes() != names["image"].tobytes()
