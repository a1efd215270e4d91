"""The exported file: equal to torch for any batch and size, whole or not there, and a detector like others."""

import importlib
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tiny_families
import torch
from documents import BLOCKS
from invocation import done, run, the_line
from torch import Tensor, nn

from refinebox.boxes import to_pixels
from refinebox.detection.detector import Detector
from refinebox.detection.output import Detections, DetectorOutput
from refinebox.detection.zoo import describe, load_detector
from refinebox.files import checkpoint
from refinebox.refinement import export as module
from refinebox.refinement.export import OPSET, export, in_onnxruntime, to_onnx
from refinebox.refinement.exportable import Whole
from refinebox.refinement.exported import (
    METADATA_KEY,
    ExportedDetector,
    ExportedUpgraded,
    open_exported,
    open_session,
)
from refinebox.refinement.obstacle import obstacle, trims
from refinebox.refinement.proof import prove
from refinebox.refinement.quality import Quality
from refinebox.refinement.refined_detector import RefinedDetector
from refinebox.refinement.refiner import Refiner
from refinebox.refinement.tracing import traced
from refinebox.refinement.upgraded import apply, load, open_model
from refinebox.training.run import write_refiner

MISSING = "exporting is tested with the extra onnx; pip install -e '.[test]'"
onnx, _, onnxruntime = (pytest.importorskip(name, reason=MISSING) for name in ("onnx", "onnxscript", "onnxruntime"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("export")


@pytest.fixture(scope="module")
def upgraded(folder: Path) -> RefinedDetector:
    """The bundled detector, whose scores are apart, with a refiner that moves boxes and a head that changes scores."""
    detector = load_detector("dab-detr-shapes")
    torch.manual_seed(0)
    refiner = Refiner(detector.channels, detector.strides, steps=2)
    nn.init.normal_(refiner.bboxes_refiner.bboxes_deltas.weight, std=0.1)
    refiner.quality = Quality(refiner.steps, 6)
    write_refiner(folder / "best.safetensors", refiner, detector, {}, {"before": None, "after": None})
    checkpoint.write(
        folder / "detector.safetensors", detector.tensors(), {"kind": "detector", "detector": describe(detector)}
    )
    apply(detector, folder / "detector.safetensors", folder / "best.safetensors", folder / "better.safetensors")
    model = load(folder / "better.safetensors")
    assert isinstance(model, RefinedDetector)
    return model


@pytest.fixture(scope="module")
def file(upgraded: RefinedDetector, folder: Path, shapes_folder: Path) -> Path:
    """Exported by the command, which compares AP too."""
    path = folder / "better.onnx"
    lines = done("export", folder / "better.safetensors", "--output", path, "--data", shapes_folder).splitlines()
    assert lines[-2].startswith(f"wrote {path} (")
    assert "in batches of 1 and 3 of 192 x 144 and " in lines[-2]
    assert re.fullmatch(r"AP of 4 images: (\S+) in torch, \1 in onnxruntime \([+-]0\.00\)", lines[-1])
    return path


@pytest.fixture(scope="module")
def metadata(file: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(
        next(entry.value for entry in onnx.load(file).metadata_props if entry.key == METADATA_KEY)
    )
    return found


def test_the_lines_of_the_document_run(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """docs/export.md says how to run a file without refinebox."""
    block, *_ = (block for block in BLOCKS if block.place.startswith("docs/export.md") and block.language == "python")
    monkeypatch.chdir(file.parent)
    images, sizes = batch((144, 192))
    names = {"images": images.numpy(), "sizes": sizes.numpy()}
    exec(compile(block.code, "export.md", "exec"), names)
    assert names["boxes"].shape == (*names["scores"].shape, 4)
    assert names["labels"].shape == names["scores"].shape


def batch(*sizes: tuple[int, int]) -> tuple[Tensor, Tensor]:
    torch.manual_seed(3)
    return torch.randn(len(sizes), 3, *(max(side) for side in zip(*sizes, strict=True))), torch.tensor(sizes)


@pytest.mark.parametrize("sizes", [[(64, 80)], [(97, 51), (96, 40)], [(64, 64)] * 5])
def test_batches_and_sizes_that_the_proof_did_not_try(
    sizes: list[tuple[int, int]], file: Path, upgraded: RefinedDetector
) -> None:
    images, inside = batch(*sizes)
    exported = open_exported(file)
    assert isinstance(exported, ExportedUpgraded)
    for found, wanted in zip(
        exported.before_and_after(images, inside), upgraded.before_and_after(images, inside), strict=True
    ):
        torch.testing.assert_close(found.boxes, wanted.boxes, atol=1e-4, rtol=0)
        torch.testing.assert_close(exported.scores_of(found), upgraded.scores_of(wanted), atol=1e-4, rtol=0)
    assert exported.clips == upgraded.clips


def test_the_detections_are_the_detectors_own(file: Path, upgraded: RefinedDetector) -> None:
    images, inside = batch((64, 80), (60, 70))
    outputs = ["boxes", "scores", "labels"]
    given = {"images": images.numpy(), "sizes": inside.numpy()}
    boxes, scores, labels = (
        torch.from_numpy(array) for array in onnxruntime.InferenceSession(file).run(outputs, given)
    )
    output = upgraded(images, inside)
    for index, wanted in enumerate(upgraded.select(upgraded.scores_of(output), output.boxes, inside)):
        torch.testing.assert_close(scores[index], wanted.scores, atol=1e-5, rtol=0)
        torch.testing.assert_close(boxes[index, :10], wanted.boxes[:10], atol=1e-3, rtol=0)
        assert torch.equal(labels[index, :10], wanted.labels[:10])  # the least may trade places by rounding


def test_the_graph_is_as_it_should_be(file: Path) -> None:
    model = onnx.load(file)
    assert [entry.version for entry in model.opset_import if entry.domain == ""] == [OPSET]
    operators = [node.op_type for node in model.graph.node]
    assert "LayerNormalization" in operators
    assert not {"NonZero", "RoiAlign", "NonMaxSuppression", "If", "Loop"} & set(operators)
    free = [dimension.dim_param for dimension in model.graph.input[0].type.tensor_type.shape.dim]
    assert [bool(name) for name in free] == [True, False, True, True]


def test_the_file_says_what_it_is(
    metadata: dict[str, Any], file: Path, upgraded: RefinedDetector, folder: Path
) -> None:
    assert metadata["kind"] == "exported detector"
    assert metadata["detector"]["categories"][0] == {"id": 1, "name": "ellipse"}
    assert metadata["detector"]["input"]["short_side"] == 160
    assert metadata["sha256"] == upgraded.detector.weights_sha256()
    assert metadata["source"]["sha256"] == checkpoint.file_sha256(folder / "better.safetensors")
    assert metadata["proof"]["batches"] == [1, 3]
    assert 0 <= metadata["proof"]["boxes"] < 0.1
    assert 0 < metadata["proof"]["scores"] < 1e-4
    lines = done("info", file).splitlines()
    assert [line.partition(":")[0] for line in lines] == ["kind", "detector", "exported by", "proof", "AP"]
    assert lines[0].endswith(" exported detector, upgraded")
    assert re.search(r"at most \S+ pixels and \S+ of a score from torch$", lines[-2])
    ap = metadata["judged"]["AP"]
    assert ap["images"] == 4
    assert ap["exported"] == pytest.approx(ap["torch"], abs=0.01)
    assert lines[-1].endswith(f"{ap['exported']:.2f} on 4 images, torch {ap['torch']:.2f}")


def test_eval_and_predict_give_what_the_checkpoint_gives(
    file: Path, folder: Path, shapes_folder: Path, tmp_path: Path
) -> None:
    for path in (file, folder / "better.safetensors"):
        there = tmp_path / path.suffix[1:]
        done("eval", path, "--data", shapes_folder, "--output", there / "eval", "--device", "cpu")
        done("predict", path, shapes_folder / "val", "--output", there / "predict", "--device", "cpu")
    for name in ("eval/before.json", "eval/after.json", "predict/results.json"):
        found, wanted = (json.loads((tmp_path / kind / name).read_text()) for kind in ("onnx", "safetensors"))
        assert len(found) == len(wanted) > 0
        for row in (row for row in wanted if row["score"] > 0.1):  # the least may trade places by rounding
            same = [each for each in found if all(each[key] == row[key] for key in ("image_id", "category_id"))]
            assert any(abs(each["score"] - row["score"]) < 1e-4 and near(each["bbox"], row["bbox"]) for each in same)
    assert (tmp_path / "onnx/eval/after.json").read_text() != (tmp_path / "onnx/eval/before.json").read_text()


def near(box: list[float], other: list[float]) -> bool:
    return max(abs(a - b) for a, b in zip(box, other, strict=True)) < 0.1


def test_images_without_objects_have_no_ap_to_compare(shapes_folder: Path, tmp_path: Path) -> None:
    empty = tmp_path / "empty.json"
    content = json.loads((shapes_folder / "annotations/instances_val.json").read_text())
    empty.write_text(json.dumps({**content, "annotations": []}))
    data = ["--annotations", empty, "--images", shapes_folder / "val"]
    line = the_line(run("export", "dab-detr-shapes", "--output", tmp_path / "none.onnx", *data))
    assert "has no objects, so there is no AP to compare; leave out --data, or name others" in line
    assert not (tmp_path / "none.onnx").exists()


def test_nothing_can_be_trained_on_it(file: Path, shapes_folder: Path, tmp_path: Path) -> None:
    arguments = ["train", "--detector", file, "--data", shapes_folder, "--output", tmp_path / "run", "--device", "cpu"]
    line = the_line(run(*arguments))
    assert "dab_detr_shapes gives no feature maps, as exported files do not; name the checkpoint" in line
    assert not (tmp_path / "run").exists()
    line = the_line(run("export", file, "--output", tmp_path / "again.onnx"))
    assert line.endswith(
        "cannot be exported: it comes from an exported file; name the checkpoint that this was made from"
    )


def test_deformable_attention_is_exported() -> None:
    part = Whole(tiny_families.build("dino"))
    proof = prove(in_onnxruntime(opened(part), part), part)
    assert proof.boxes is not None
    assert proof.boxes < 0.1


def opened(part: Whole) -> Any:
    return open_session(to_onnx(traced(part), part).SerializeToString())


def test_a_choice_of_every_query_is_exported() -> None:
    detector = tiny_families.build("detr")
    images, inside = batch((64, 80), (60, 70))
    found = opened(Whole(detector)).run(
        ["boxes", "scores", "labels"], {"images": images.numpy(), "sizes": inside.numpy()}
    )
    boxes, scores, labels = map(torch.from_numpy, found)
    output = detector(images, inside)
    chosen = detector.select(detector.scores(output.logits), output.boxes, inside)
    for index, wanted in enumerate(chosen):
        order = wanted.scores.argsort(descending=True)
        torch.testing.assert_close(scores[index], wanted.scores[order], atol=1e-5, rtol=0)
        torch.testing.assert_close(boxes[index], to_pixels(output.boxes, inside)[index][order], atol=1e-3, rtol=0)
        assert torch.equal(labels[index], wanted.labels[order])


def test_what_depends_on_the_image_is_refused(tmp_path: Path) -> None:
    expected = "^tiny-ddq cannot be exported: it suppresses queries between its layers, another number in every image$"
    with pytest.raises(ValueError, match=expected):
        export(tiny_families.build("ddq"), tmp_path / "ddq.onnx")


@pytest.mark.parametrize(
    ("unlucky", "expected"),
    [
        (
            lambda boxes: boxes if boxes.max() > 0.5 else -boxes,
            "a shape in it depends on what is in the image, as after a suppress",
        ),
        (
            lambda boxes: boxes.view(3, -1, 4),
            "its code makes a number of the size of a batch, which a graph has to leave",
        ),
    ],
)
def test_what_a_graph_cannot_hold_is_said_in_a_line(
    unlucky: Any,
    expected: str,
    detector: Detector,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    detect = detector.detect

    def spoiled(images: Tensor, sizes: Tensor) -> DetectorOutput:
        output = detect(images, sizes)
        return replace(output, boxes=unlucky(output.boxes) + 0.0)

    monkeypatch.setattr(detector, "detect", spoiled)
    with pytest.raises(ValueError, match=f"^tiny cannot be exported: {expected}[^\n]*$"):
        export(detector, tmp_path / "x.onnx")
    assert not list(tmp_path.iterdir())
    assert capsys.readouterr() == ("", "")


def test_what_mmdetection_cuts_in_the_end_is_cut(tmp_path: Path) -> None:
    detector = tiny_families.build("dino")
    assert trims(detector) is False
    detector.profile = replace(detector.profile, layout="mmdet3")
    assert trims(detector) is True
    assert obstacle(detector) is None
    exported = ExportedDetector(None, {"detector": describe(detector), "trims": True}, "x.onnx")
    given = Detections(torch.tensor([[-5.0, 2.0, 90.0, 20.0]]), torch.ones(1), torch.ones(1, dtype=torch.int64))
    assert torch.equal(exported.finish(given, (30, 40)).boxes, detector.finish(given, (30, 40)).boxes)
    assert exported.finish(given, (30, 40)).boxes.tolist() == [[0.0, 2.0, 40.0, 20.0]]


def test_a_difference_is_an_error_and_leaves_the_old_file(
    file: Path, upgraded: RefinedDetector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "traced", lambda part: None)
    monkeypatch.setattr(module, "to_onnx", lambda program, part: onnx.load(file))
    other = RefinedDetector(
        upgraded.detector, Refiner(upgraded.channels, upgraded.strides, 2)
    )  # not what the file holds
    (tmp_path / "old.onnx").write_text("old")
    expected = r"^the exported dab_detr_shapes differs from torch by up to \S+ pixels and \S+ of a score, expected"
    with pytest.raises(ValueError, match=expected):
        export(other, tmp_path / "old.onnx")
    assert [path.name for path in tmp_path.iterdir()] == ["old.onnx"]
    assert (tmp_path / "old.onnx").read_text() == "old"


@pytest.mark.parametrize(
    ("content", "expected"),
    [(None, "no file at .*; check the path"), (b"nonsense", ".* is damaged or no ONNX file; export it again")],
)
def test_other_files_are_refused(content: bytes | None, expected: str, tmp_path: Path) -> None:
    path = tmp_path / "x.onnx"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises((ValueError, FileNotFoundError), match=f"^{expected}$"):
        open_model(str(path))


def test_files_of_others_are_refused(file: Path, tmp_path: Path) -> None:
    model = onnx.load(file)
    del model.metadata_props[:]
    onnx.save(model, tmp_path / "x.onnx")
    with pytest.raises(ValueError, match="is not from refinebox; expected what refinebox export wrote"):
        open_model(str(tmp_path / "x.onnx"))


def test_an_old_onnxruntime_is_named(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnxruntime, "__version__", "1.17.3")
    expected = r"^onnxruntime 1\.17\.3 is too old; expected 1\.18 or later: pip install --upgrade onnxruntime$"
    with pytest.raises(ValueError, match=expected):
        open_exported(file)
    line = the_line(run("export", file.with_suffix(".safetensors"), "--output", file.with_name("new.onnx")))
    assert re.fullmatch(expected.replace("^", "refinebox: "), line)


def test_a_missing_library_is_named(detector: Detector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> Any:
        raise ImportError(f"no {name}")

    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.raises(ValueError, match=r"^onnx is needed .* run: pip install 'refinebox\[onnx\]'$"):
        export(detector, tmp_path / "x.onnx")


@pytest.mark.parametrize(
    ("output", "options", "expected"),
    [
        ("x.pt", [], "x.pt does not end in .onnx or .pt2, by which the kind of file is known; name one that does"),
        ("", [], "is a folder; name a file to write"),
        ("old.onnx", [], "old.onnx exists; name another file, or pass --force to replace it once the new one is"),
        ("x.pt2", ["--half"], "half precision is for .onnx files, and .*x.pt2 is none; leave it out, or name one"),
        ("x.onnx", ["--part", "features", "--data", "."], "AP is measured of a whole .onnx file; leave out the data, "),
        ("x.pt2", ["--data", "."], "AP is measured of a whole .onnx file; leave out the data, or export that"),
    ],
)
def test_what_cannot_be_meant_is_said_before_any_work(
    output: str, options: list[str], expected: str, folder: Path, upgraded: RefinedDetector, tmp_path: Path
) -> None:
    (tmp_path / "old.onnx").write_text("old")
    line = the_line(run("export", folder / "better.safetensors", "--output", tmp_path / output, *options))
    assert re.search(expected, line)
    assert [path.name for path in tmp_path.iterdir()] == ["old.onnx"]
    assert (tmp_path / "old.onnx").read_text() == "old"
