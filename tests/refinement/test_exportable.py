"""Parts of an upgraded detector: together they are the whole, in onnxruntime and in a process without refinebox."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from documents import BLOCKS
from invocation import done
from torch import Tensor, nn

from refinebox.boxes import to_pixels
from refinebox.detection.detector import Detector
from refinebox.detection.zoo import load_detector
from refinebox.refinement import export as module
from refinebox.refinement.architecture import Architecture
from refinebox.refinement.description import described
from refinebox.refinement.export import export, in_onnxruntime, session_of
from refinebox.refinement.exportable import RefinerAlone, pictures
from refinebox.refinement.exported import METADATA_KEY, open_exported
from refinebox.refinement.half import halved
from refinebox.refinement.proof import HALF, Bar, prove
from refinebox.refinement.quality import Quality
from refinebox.refinement.refined_detector import RefinedDetector
from refinebox.refinement.refiner import Refiner

MISSING = "exporting is tested with the extra onnx; pip install -e '.[test]'"
onnxruntime = pytest.importorskip("onnxruntime", reason=MISSING)


def upgrade(detector: Detector, *, quality: bool = True) -> RefinedDetector:
    """With a refiner that moves boxes; one that judges them looks at the pixels too."""
    torch.manual_seed(0)
    refiner = Refiner(detector.channels, detector.strides, 1, Architecture(stem=quality))
    nn.init.normal_(refiner.bboxes_refiner.bboxes_deltas.weight, std=0.1)
    if quality:
        refiner.quality = Quality(refiner.steps, len(detector.category_ids))
    return RefinedDetector(detector, refiner)


@pytest.fixture(scope="module")
def model(make_detector: Any) -> RefinedDetector:
    return upgrade(make_detector())


@pytest.fixture(scope="module")
def folder(model: RefinedDetector, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Both parts as ONNX files, and the refiner as torch's own kind too."""
    path = tmp_path_factory.mktemp("parts")
    for name, part in (("features.onnx", "features"), ("refiner.onnx", "refiner"), ("refiner.pt2", "refiner")):
        proof = export(model, path / name, part=part).proof  # type: ignore[arg-type]
        assert len(proof.sizes) == 2
        assert (proof.maps is not None, proof.boxes is not None) == (part == "features", part == "refiner")
    return path


def queries(model: RefinedDetector, height: int, width: int) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Two images, their sizes, and boxes in pixels and scores before, and boxes after refinement."""
    images, sizes = pictures(2, height, width)
    before, after = model.before_and_after(images, sizes)
    boxes = to_pixels(before.boxes, sizes)
    return images, sizes, boxes, model.scores(before.logits), to_pixels(after.boxes, sizes)


@pytest.mark.parametrize(("height", "width"), [(64, 96), (73, 51)])
def test_the_parts_in_turn_are_the_whole(height: int, width: int, folder: Path, model: RefinedDetector) -> None:
    images, sizes, boxes, scores, wanted = queries(model, height, width)
    features, refiner = (onnxruntime.InferenceSession(folder / f"{name}.onnx") for name in ("features", "refiner"))
    given = {"images": images.numpy(), "sizes": sizes.numpy()}
    maps = features.run(None, {key: given[key] for key in (entry.name for entry in features.get_inputs())})
    names = [output.name for output in features.get_outputs()]
    assert names == ["map_0", "map_1", "map_2", "map_3"]
    given = {"images": images.numpy(), "boxes": boxes.numpy(), "sizes": sizes.numpy(), "scores": scores.numpy()}
    refined, rescored = refiner.run(None, dict(zip(names, maps, strict=True)) | given)
    torch.testing.assert_close(torch.from_numpy(refined), wanted, atol=1e-3, rtol=0)
    torch.testing.assert_close(
        torch.from_numpy(rescored), model.before_and_after(images, sizes)[1].rescored, atol=1e-4, rtol=0
    )


def test_a_box_that_is_not_finite_stays_so_and_alone(folder: Path, model: RefinedDetector) -> None:
    """onnxruntime would look for cells outside the map, and the batch would have no answer."""
    images, sizes, boxes, scores, wanted = queries(model, 64, 96)
    boxes[0, 0, 1], boxes[1, 2] = torch.nan, torch.inf
    maps = {f"map_{level}": each.numpy() for level, each in enumerate(model.detector.features(images, sizes))}
    given = {"images": images.numpy(), "boxes": boxes.numpy(), "sizes": sizes.numpy(), "scores": scores.numpy()}
    refined = torch.from_numpy(
        onnxruntime.InferenceSession(folder / "refiner.onnx").run(["refined_boxes"], maps | given)[0]
    )
    strange = torch.zeros_like(refined[..., 0], dtype=torch.bool)
    strange[0, 0] = strange[1, 2] = True
    assert torch.equal(~refined.isfinite().all(-1), strange)
    torch.testing.assert_close(refined[~strange], wanted[~strange], atol=1e-3, rtol=0)


FRESH = """
import json, sys
sys.modules["refinebox"] = None  # an import of it is an error
import torch
extra = {"refinebox.json": ""}
program = torch.export.load(sys.argv[1], extra_files=extra)
given = torch.load(sys.argv[2], weights_only=True)
torch.save(program.module()(*given), sys.argv[3])
print(json.loads(extra["refinebox.json"])["kind"], "torchvision" in sys.modules)
"""


def test_torch_alone_runs_its_own_kind(folder: Path, model: RefinedDetector, tmp_path: Path) -> None:
    images, sizes, boxes, scores, wanted = queries(model, 73, 51)
    maps = [images, *model.detector.features(images, sizes)]
    torch.save((maps, boxes, sizes, scores), tmp_path / "given.pt")
    files = [str(path) for path in (folder / "refiner.pt2", tmp_path / "given.pt", tmp_path / "found.pt")]
    finished = subprocess.run(
        [sys.executable, "-I", "-c", FRESH, *files], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert (finished.returncode, finished.stdout) == (0, "exported refiner False\n"), finished.stderr
    found = torch.load(tmp_path / "found.pt", weights_only=True)
    torch.testing.assert_close(found["refined_boxes"], wanted, atol=1e-3, rtol=0)


def test_the_lines_of_the_document_run(
    folder: Path, model: RefinedDetector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """docs/export.md says how torch runs a file; what compiles it for minutes is stood in for."""
    images, sizes, boxes, scores, wanted = queries(model, 73, 51)
    compiled: list[Any] = []
    monkeypatch.setattr(torch._inductor, "aoti_compile_and_package", lambda *given, **named: compiled.append(named))
    monkeypatch.chdir(tmp_path)
    shutil.copy(folder / "refiner.pt2", "better.pt2")
    maps = [images, *model.detector.features(images, sizes)]
    names: dict[str, Any] = {"given": (maps, boxes, sizes, scores)}
    for block in BLOCKS:
        if block.language == "python" and block.document == "docs/export.md" and "torch.export" in block.code:
            exec(compile(block.code.replace("images, sizes", "*given"), "export.md", "exec"), names)
    torch.testing.assert_close(names["outputs"]["refined_boxes"], wanted, atol=1e-3, rtol=0)
    assert compiled == [{"package_path": "compiled.pt2"}]


def test_files_say_what_they_are(folder: Path, tmp_path: Path) -> None:
    for name, kind in (("features.onnx", "features"), ("refiner.onnx", "refiner"), ("refiner.pt2", "refiner")):
        lines = done("info", folder / name).splitlines()
        assert lines[0].endswith(f" exported {kind}, upgraded")
        assert lines[-1].endswith(" from torch")
    expected = (
        r"refiner\.onnx holds exported refiner, which finds nothing alone; name a detector that was exported whole$"
    )
    with pytest.raises(ValueError, match=expected):
        open_exported(folder / "refiner.onnx")
    (tmp_path / "x.pt2").write_text("nonsense")
    with pytest.raises(ValueError, match=r"x\.pt2 is damaged or not from refinebox; expected what refinebox export"):
        described(tmp_path / "x.pt2")


def test_half_precision_is_measured_and_leaves_boxes_whole(folder: Path, model: RefinedDetector) -> None:
    onnx = pytest.importorskip("onnx", reason=MISSING)
    whole = onnx.load(folder / "refiner.onnx")
    metadata = json.loads(next(entry.value for entry in whole.metadata_props if entry.key == METADATA_KEY))
    small = halved(onnx.load(folder / "refiner.onnx"))
    part = RefinerAlone(model)
    run = in_onnxruntime(session_of(small.SerializeToString(), part), part)
    proof = prove(run, part, HALF)
    assert proof.boxes is not None
    assert metadata["proof"]["boxes"] < proof.boxes < 1.0
    bytes_of = [sum(len(tensor.raw_data) for tensor in each.graph.initializer) for each in (whole, small)]
    assert bytes_of[1] < 0.6 * bytes_of[0]
    floats = {entry.type.tensor_type.elem_type for entry in (*small.graph.input, *small.graph.output)}
    assert floats == {onnx.TensorProto.FLOAT, onnx.TensorProto.INT64}
    inferred = onnx.shape_inference.infer_shapes(small)
    types = {value.name: value.type.tensor_type.elem_type for value in inferred.graph.value_info}
    kept = {"LayerNormalization", "InstanceNormalization", "Floor", "Clip", "Exp", "Div"}  # where places are computed
    found = {node.op_type: types.get(node.output[0]) for node in small.graph.node if node.op_type in kept}
    assert set(found.values()) <= {onnx.TensorProto.FLOAT, onnx.TensorProto.INT64}
    assert "LayerNormalization" in found
    with pytest.raises(
        ValueError, match=r"expected at most 0 pixels and .*; nothing is written: export it without --h"
    ):
        prove(run, part, Bar(boxes=0.0, scores=0.0, above=0.05))


def test_a_file_in_half_precision_says_so(
    folder: Path, model: RefinedDetector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    onnx = pytest.importorskip("onnx", reason=MISSING)

    def again(*_: Any) -> Any:
        """Traced once is enough."""
        whole = onnx.load(folder / "refiner.onnx")
        del whole.metadata_props[:]
        return whole

    monkeypatch.setattr(module, "traced", lambda part: None)
    monkeypatch.setattr(module, "to_onnx", again)
    proof = export(model, tmp_path / "half.onnx", part="refiner", half=True).proof
    lines = done("info", tmp_path / "half.onnx").splitlines()
    assert lines[0].endswith(" exported refiner, upgraded, in half precision")
    assert lines[-1].endswith(f" at most {proof.told()} from torch")
    monkeypatch.setattr(module, "HALF", Bar(boxes=1e-6, scores=1e-9, above=0.05))
    with pytest.raises(
        ValueError, match=r"differs from torch by up to .*; nothing is written: export it without --half$"
    ):
        export(model, tmp_path / "other.onnx", part="refiner", half=True)
    assert [path.name for path in tmp_path.iterdir()] == ["half.onnx"]


def test_a_detector_without_a_refiner_has_none_to_export(detector: Detector, tmp_path: Path) -> None:
    expected = "^tiny has no refiner to export; name an upgraded checkpoint, as refinebox apply writes it$"
    with pytest.raises(ValueError, match=expected):
        export(detector, tmp_path / "x.onnx", part="refiner")


def test_a_dense_detector_is_exported_in_parts(tmp_path: Path) -> None:
    import torchvision

    network = torchvision.models.get_model("ssd300_vgg16", weights=None, weights_backbone=None, num_classes=3)
    torch.save(network.state_dict(), tmp_path / "weights.pth")
    model = upgrade(load_detector("torchvision:ssd300_vgg16", tmp_path / "weights.pth"), quality=False)
    expected = (
        "torchvision:ssd300_vgg16 cannot be exported: it suppresses overlapping boxes, which keeps another number of "
        "them in every image; --part features and --part refiner export what moves its boxes"
    )
    with pytest.raises(ValueError, match=f"^{re.escape(expected)}$"):
        export(model, tmp_path / "x.onnx")
    proof = export(model, tmp_path / "features.onnx", part="features").proof
    assert proof.maps is not None
    assert proof.maps < 1e-5
    assert proof.sizes == ((300, 300),)
