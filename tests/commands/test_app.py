"""Every command on a tiny detector, and one line for everything that a user can put right."""

import errno
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any, NoReturn

import pytest
import torch
from invocation import Words, content, done, run, the_line
from PIL import Image
from refinebox.adapters.dab_detr import DabDetr
from refinebox.adapters.parts.backbone import ResNetSizes
from refinebox.adapters.parts.sizes import Sizes
from torch import Tensor

import refinebox
from refinebox.data.annotations import CocoData
from refinebox.data.categories import COCO_NAMES
from refinebox.detection.detector import Detector
from refinebox.detection.entry import cached
from refinebox.detection.published import DETECTORS
from refinebox.detection.published import refiner_file as refiner_file_of
from refinebox.detection.zoo import describe, load_detector
from refinebox.evaluation.evaluator import METRICS
from refinebox.files import checkpoint
from refinebox.refinement.refined_detector import RefinedDetector
from refinebox.refinement.refiner import Refiner
from refinebox.refinement.refiner_file import load_refiner
from refinebox.training.run import write_refiner
from refinebox.training.settings import Settings
from refinebox.training.verdict import Report


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Default outputs land where they can be seen."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    for name in ("REFINEBOX_DEBUG", "FORCE_COLOR", "TTY_COMPATIBLE", "COLUMNS"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def detector_file(detector: Detector, tmp_path: Path) -> Path:
    path = tmp_path / "detector.safetensors"
    checkpoint.write(path, detector.tensors(), {"kind": "detector", "detector": describe(detector)})
    return path


@pytest.fixture
def refiner_file(detector: Detector, tmp_path: Path) -> Path:
    torch.manual_seed(5)
    metrics = dict.fromkeys(METRICS, 40.0)
    best = {"epoch": 1, "before": metrics, "after": {**metrics, "AP": 41.25}}
    path = tmp_path / "best.safetensors"
    write_refiner(path, Refiner(detector.channels, detector.strides), detector, asdict(Settings()), best)
    return path


@pytest.fixture
def upgraded(detector_file: Path, refiner_file: Path, tmp_path: Path) -> Path:
    path = tmp_path / "better.safetensors"
    done("apply", "--detector", detector_file, "--refiner", refiner_file, "--output", path)
    return path


def test_the_version_is_shown() -> None:
    assert done("--version") == f"{refinebox.__version__}\n"


@pytest.mark.parametrize(
    "command",
    [
        *("demo", "detectors", "oracle-analysis", "train", "apply", "export"),
        *("eval", "predict", "refine", "info", "env"),
    ],
)
def test_every_command_explains_itself(command: str) -> None:
    assert command in done("--help")
    assert "Usage: " in done(command, "--help")


def test_a_file_is_described(refiner_file: Path, upgraded: Path, detector_file: Path, tmp_path: Path) -> None:
    lines = done("info", refiner_file).splitlines()
    assert [line.partition(":")[0] for line in lines] == [
        *("kind", "architecture", "reads", "parameters", "trained on", "validation AP", "-v shows settings")
    ]
    parts = "FPN, head of 3 blocks reads mean, area 1 x the box in 7 x 7 cells, logit moves; 3 steps"
    assert lines[1] == f"architecture:  published: {parts}"
    assert lines[-2] == "validation AP: 40.0 → 41.2, by which the epoch was chosen"
    assert "detector:      tiny (dab_detr), 6 categories\n" in done("info", upgraded)
    assert done("info", detector_file).splitlines()[0] == "kind:     detector"
    line = the_line(run("info", tmp_path / "none.safetensors"))
    assert line == f"refinebox: no checkpoint at {tmp_path / 'none.safetensors'}; check the path"


def test_images_that_chose_the_epoch_show_no_gain(
    detector: Detector, detector_file: Path, shapes_folder: Path, validation: CocoData, tmp_path: Path
) -> None:
    refiner, better, page = (tmp_path / name for name in ("best.safetensors", "better.safetensors", "report.html"))
    torch.manual_seed(5)
    metrics = dict.fromkeys(METRICS, 40.0)
    data = {"train": {"images": 6, "boxes": 32}, "val": validation.origin()}
    history = {"epoch": 1, "before": metrics, "after": metrics, "data": data}
    write_refiner(refiner, Refiner(detector.channels, detector.strides), detector, asdict(Settings()), history)
    done("apply", "--detector", detector_file, "--refiner", refiner, "--output", better)
    line = r"AP [\d.]+ → [\d.]+; these images chose the epoch, so this measures no gain"
    shown = done("eval", better, "--data", shapes_folder, "-v")
    assert re.search(rf"^{line}$", shown, re.MULTILINE)
    assert not re.search(r"\([+-]", shown)
    shown = done("oracle-analysis", "--detector", better, "--data", shapes_folder, "--html", page)
    assert re.search(rf"^Refined: {line}\.$", shown, re.MULTILINE)
    report = page.read_text(encoding="utf-8")
    assert [text for text in ("of the headroom closed", "gained by", "gain of") if text in report] == []
    assert report.count("these images chose the epoch, so this measures no gain") == 1

    others = tmp_path / "others.json"  # the same images, but not the file that chose
    others.write_text(json.dumps(json.loads(validation.source.read_text())) + "\n")  # type: ignore[union-attr]
    shown = done("eval", better, "--annotations", others, "--images", validation.folder)
    assert re.search(r"^AP [\d.]+ → [\d.]+ \([+-][\d.]+, 95 %: .*\), over 1,000 resamples", shown, re.MULTILINE)


def test_there_must_be_something_to_apply(detector_file: Path, tmp_path: Path) -> None:
    arguments: Words = ["apply", "--detector", detector_file, "--output", tmp_path / "better.safetensors"]
    assert the_line(run(*arguments)) == ("refinebox: there is nothing to apply; name a --refiner, or pass --voting")
    assert the_line(run(*arguments, "--voting")) == (
        "refinebox: tiny drops no candidates, so none can vote; leave out --voting, which is for detectors that "
        "end in suppression"
    )
    assert not (tmp_path / "better.safetensors").exists()


def test_the_analysis_prints_its_rules_and_writes_its_figures(
    detector_file: Path, shapes_folder: Path, tmp_path: Path
) -> None:
    figures = tmp_path / "new" / "figures.json"
    shown = done("oracle-analysis", "--detector", detector_file, "--data", shapes_folder, "--json", figures)
    for text in (
        "as is",
        "perfect class",
        "perfect box",
        "both",
        "Matching: Hungarian",
        "Scores: ",
        "Gains do not add",
    ):
        assert text in shown
    swaps = json.loads(figures.read_text())["swaps"]
    assert list(swaps)[:4] == ["none", "class", "box", "both"]
    assert all(list(metrics) == ["AP", "AP50", "AP75", "APs", "APm", "APl", "AR"] for metrics in swaps.values())
    assert swaps["both"]["AP"] == pytest.approx(100)


def test_detections_of_any_detector_are_analysed_without_one(shapes_folder: Path, tmp_path: Path) -> None:
    annotations = shapes_folder / "annotations" / "instances_val.json"
    truth = json.loads(annotations.read_text())["annotations"]
    rows = [
        {"image_id": a["image_id"], "category_id": a["category_id"], "bbox": a["bbox"], "score": 0.5} for a in truth
    ]
    rows[1]["bbox"] = [*rows[1]["bbox"][:3], 0.7 * rows[1]["bbox"][3]]
    (tmp_path / "results.json").write_text(json.dumps(rows[1:]))
    names = "json", "csv", "html"
    files = {name: tmp_path / "new" / f"report.{name}" for name in names}
    options = [word for name in names for word in (f"--{name}", files[name])]
    # neither the images nor a detector are there
    shown = done("oracle-analysis", "--results", tmp_path / "results.json", "--annotations", annotations, *options)
    for text in (
        "results.json: AP in points",
        "Matching: greedy",
        "no duplicates",
        "TIDE's errors",
        "Evaluated by hot",
    ):
        assert text in shown
    swaps = json.loads(files["json"].read_text())["swaps"]
    assert swaps["none"]["AP"] < 100
    assert swaps["none"]["AP"] < swaps["no_misses"]["AP"] < 100
    assert swaps["both"]["AR"] > swaps["none"]["AR"]
    assert files["csv"].read_text().startswith("category id,category,objects,none AP,")
    assert "image files are not there" in files["html"].read_text()
    refined = json.dumps([*rows[1:], {**rows[0], "score": 0.4}])
    (tmp_path / "refined.json").write_text(refined)
    shown = done(
        *("oracle-analysis", "--results", tmp_path / "results.json", "--refined", tmp_path / "refined.json"),
        *("--data", shapes_folder, "--min-iou", "0.3"),
    )
    assert "box, IoU ≥ 0.30" in shown
    assert "Refined: AP " in shown


def quick(detector_file: Path, shapes_folder: Path, output: Path) -> Words:
    source: Words = ["train", "--detector", detector_file, "--data", shapes_folder, "--output", output]
    return [*source, "--epochs", "1", "--batch-size", "2"]


def test_a_training_can_be_resumed_and_says_what_to_think_of_it(
    detector_file: Path, shapes_folder: Path, tmp_path: Path
) -> None:
    output = tmp_path / "first run"
    shown = done(*quick(detector_file, shapes_folder, output)).splitlines()
    names = sorted(path.relative_to(output).as_posix() for path in output.rglob("*"))
    assert names == [
        "best.safetensors",
        "config.json",
        "curves.svg",
        "last",
        "last/state.safetensors",
        "losses.jsonl",
        "metrics.jsonl",
    ]
    assert [line.split(":")[0] for line in shown[:3]] == ["train", "val", "epoch 1/1"]
    assert shown[3].startswith("validation AP ")
    assert "the detector alone finds next to NOTHING here" in shown[3]
    assert "32 objects are too few to learn from" in shown[3]
    assert "next: " not in shown[3]
    assert len(shown) == 4

    old = content(output)
    again = done(*quick(detector_file, shapes_folder, output), "--resume").splitlines()
    assert again[2:] == shown[3:]
    assert content(output) == old


@pytest.fixture
def easily_content(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every training counts as a good one."""
    monkeypatch.setattr(Report, "sound", property(lambda _: True))


@pytest.mark.parametrize("name", ["run", "first run"])
@pytest.mark.usefixtures("easily_content")
def test_the_next_command_works(name: str, detector_file: Path, shapes_folder: Path, tmp_path: Path) -> None:
    shown = done(*quick(detector_file, shapes_folder, tmp_path / name))
    command = shlex.split(shown.split("\nnext: ")[1])
    assert command[:2] == ["refinebox", "apply"]
    done(*command[1:], "--force")
    assert isinstance(refinebox.load("better.safetensors"), RefinedDetector)


@pytest.mark.usefixtures("easily_content")
def test_the_next_command_names_the_weights(detector: Detector, shapes_folder: Path, tmp_path: Path) -> None:
    """Weights without metadata say nothing of their categories, so the data's ids become the columns."""
    torch.save({"model": detector.tensors()}, tmp_path / "dab.pth")
    validation = json.loads((shapes_folder / "annotations/instances_val.json").read_text())
    for entry in validation["categories"]:
        entry["id"] -= 1
    for entry in validation["annotations"]:
        entry["category_id"] -= 1
    (tmp_path / "val.json").write_text(json.dumps(validation))
    source: Words = ["--detector", "dab-detr-r50-dc5-fixxy", "--weights", tmp_path / "dab.pth"]
    images: Words = ["--annotations", tmp_path / "val.json", "--images", shapes_folder / "val"]
    images += ["--val-annotations", tmp_path / "val.json", "--val-images", shapes_folder / "val"]
    options = ["--short-side", "64", "--long-side", "128", "--epochs", "1", "--batch-size", "4"]
    shown = done("train", *source, *images, *options, "--output", tmp_path / "run")
    expected = " ".join(map(str, ["refinebox apply", *source, "--refiner", tmp_path / "run/best.safetensors"]))
    assert shown.split("\nnext: ")[1].startswith(expected)


def test_a_training_leaves_out_what_cannot_be_read_unless_it_is_strict(
    detector_file: Path, spoiled_folder: Path, tmp_path: Path
) -> None:
    shown = done(*quick(detector_file, spoiled_folder, tmp_path / "run")).splitlines()
    assert shown[0].startswith("train: 6 images, ")
    assert "; 1 image files missing" in shown[0]
    assert "; left out 3 images that could not be read, such as: " in shown[2]
    strict = [*quick(detector_file, spoiled_folder, tmp_path / "strict"), "--strict"]
    assert "1 of 6 images of " in the_line(run(*strict))
    shutil.copy(spoiled_folder / "train/000001.jpg", spoiled_folder / "train/000005.jpg")
    for workers in ("0", "1"):
        line = the_line(run(*strict[:-2], "2", "--strict", "--workers", workers, "--output", tmp_path / workers))
        assert re.match(r"refinebox: .*/train/000002\.jpg is not a readable image: cannot identify", line)


def test_an_upgraded_checkpoint_is_written(detector_file: Path, refiner_file: Path, tmp_path: Path) -> None:
    output = tmp_path / "better.safetensors"
    shown = done("apply", "--detector", detector_file, "--refiner", refiner_file, "--output", output)
    wrote, cost, following = shown.splitlines()
    assert wrote == f"wrote {output}: validation AP 40.0 → 41.2, by which the epoch was chosen"
    assert following == f"next: refinebox eval {shlex.quote(str(output))} --data DATA"
    assert re.fullmatch(
        r"cost: refinement adds 0\.\d\d M parameters, [\d.]+% of the detector's, and [\d.]+ G multiply-adds, "
        r"[\d.]+% of the detector's at 85 x 64",
        cost,
    )
    assert isinstance(refinebox.load(output), RefinedDetector)


def test_a_cost_that_cannot_be_counted_is_a_line_and_the_refiner_is_read_once(
    detector_file: Path, refiner_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_: Any) -> None:
        raise RuntimeError("no black\nimages")

    read, files = checkpoint.read, []
    monkeypatch.setattr("refinebox.refinement.cost.cost_of", broken)
    monkeypatch.setattr(checkpoint, "read", lambda path, *rest: files.append(path) or read(path, *rest))
    output = tmp_path / "better.safetensors"
    shown = done("apply", "--detector", detector_file, "--refiner", refiner_file, "--output", output)
    wrote, cost, following = shown.splitlines()
    assert wrote.startswith(f"wrote {output}: ")
    assert cost == "cost: not counted, as a black image could not be looked at (RuntimeError: no black?images)"
    assert following.startswith("next: refinebox eval ")
    assert isinstance(refinebox.load(output), RefinedDetector)
    assert files.count(refiner_file) == 1


def test_a_folder_to_write_to_is_told_before_any_work(refiner_file: Path, tmp_path: Path) -> None:
    words: Words = ["apply", "--detector", "nothing", "--refiner", refiner_file, "--output", tmp_path]
    assert the_line(run(*words)).endswith(" is a folder; name a .safetensors file to write")


def test_an_unknown_ap_is_called_unknown(detector: Detector, detector_file: Path, tmp_path: Path) -> None:
    refiner = Refiner(detector.channels, detector.strides)
    bare, output = tmp_path / "bare.safetensors", tmp_path / "better.safetensors"
    checkpoint.write(bare, refiner.state_dict(), {"kind": "refiner", "strides": detector.strides})
    shown = done("apply", "--detector", detector_file, "--refiner", bare, "--output", output)
    assert shown.startswith(f"wrote {output}: its AP is not known\n")


def test_an_upgraded_checkpoint_is_evaluated_before_and_after(
    upgraded: Path, shapes_folder: Path, tmp_path: Path
) -> None:
    figures, output = tmp_path / "figures.json", tmp_path / "out"
    shown = done("eval", upgraded, "--data", shapes_folder, "--json", figures, "--output", output)
    assert "before" in shown
    assert "after" in shown
    metrics = json.loads(figures.read_text())
    assert list(metrics) == ["before", "after"]
    assert all(list(found) == list(METRICS) for found in metrics.values())
    assert sorted(path.name for path in output.iterdir()) == ["after.json", "before.json"]
    before, after = (json.loads((output / f"{stage}.json").read_text()) for stage in ("before", "after"))
    assert len(before) == len(after) == 4 * 12 * 6  # images, queries, categories
    assert before[0].keys() == after[0].keys() == {"image_id", "category_id", "bbox", "score"}
    assert before != after


def test_a_plain_detector_is_evaluated_as_it_is(detector_file: Path, shapes_folder: Path, tmp_path: Path) -> None:
    done("eval", detector_file, "--data", shapes_folder, "--json", tmp_path / "figures.json")
    assert list(json.loads((tmp_path / "figures.json").read_text())) == ["before"]
    assert [path.name for path in Path("results").iterdir()] == ["before.json"]


def test_images_are_predicted(upgraded: Path, validation: CocoData, tmp_path: Path) -> None:
    output = tmp_path / "out"
    shown = done("predict", upgraded, validation.folder, "--output", output, "--threshold", "0")
    assert shown == f"4 images: {output / 'results.json'}, {output / 'pictures'}\n"
    assert len(list((output / "pictures").iterdir())) == 4
    assert len(json.loads((output / "results.json").read_text())) == 4 * 12 * 6


def test_close_ups_stand_beside_the_pictures(
    upgraded: Path, detector_file: Path, validation: CocoData, tmp_path: Path
) -> None:
    done("predict", upgraded, validation.folder, "--output", tmp_path / "out", "--threshold", "0", "--compare")
    with Image.open(next((tmp_path / "out" / "pictures").iterdir())) as picture:
        assert picture.width > picture.height > 640
    line = the_line(run("predict", detector_file, validation.folder, "--output", tmp_path / "none", "--compare"))
    assert line == (
        "refinebox: tiny is not refined, so there is nothing to compare; name a file that refinebox apply wrote, or "
        "leave out --compare"
    )
    assert not (tmp_path / "none").exists()


def test_a_broken_image_is_skipped(detector_file: Path, validation: CocoData, tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_text("no image")
    result = run("predict", detector_file, tmp_path / "broken.png", validation.folder, "--output", tmp_path / "out")
    assert result.exit_code == 0
    assert result.stdout.startswith("4 images: ")
    assert result.stderr.startswith(f"skipped: {tmp_path / 'broken.png'} is not a readable image")
    assert len(result.stderr.splitlines()) == 1


class Code:
    """Runs a shell command when it is unpickled."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (self.command,)


@pytest.fixture
def places(
    detector: Detector, detector_file: Path, refiner_file: Path, shapes_folder: Path, tmp_path: Path
) -> dict[str, Path]:
    """Everything that bad commands name, good and bad."""
    (tmp_path / "truncated.safetensors").write_bytes(detector_file.read_bytes()[:-100])
    torch.save({"query_embed.weight": torch.zeros(2, 2), "other": torch.zeros(1)}, tmp_path / "detr.pth")
    torch.save({"model": {}, "code": Code(f"touch {tmp_path / 'executed'}")}, tmp_path / "code.pth")
    checkpoint.write(
        tmp_path / "narrow.safetensors",
        Refiner((8, 8, 8, 8), detector.strides).state_dict(),
        {"kind": "refiner", "strides": detector.strides},
    )
    (tmp_path / "list.json").write_text("[1, 2]")
    validation = json.loads((shapes_folder / "annotations/instances_val.json").read_text())
    for entry in validation["annotations"]:
        entry["image_id"] = 77
    (tmp_path / "stray.json").write_text(json.dumps(validation))
    (tmp_path / "file").write_text("kept")
    for name in ("folder", "used"):
        (tmp_path / name).mkdir()
    (tmp_path / "used" / "config.json").write_text("{}")
    (tmp_path / "found.json").write_text("[]")
    named = {path.stem: path for path in tmp_path.iterdir()}
    return {
        **named,
        "images": shapes_folder / "val",
        "data": shapes_folder,
        "none": tmp_path / "none",
        "new": tmp_path / "new",
    }


BAD = {
    "eval of a missing checkpoint": ("eval {none}.safetensors --data {data}", r"no checkpoint at .*; check the path"),
    "predict of a missing checkpoint": ("predict {none}.safetensors {images}", r"no checkpoint at .*; check the path"),
    "missing weights": (
        "oracle-analysis --detector dab-detr-r50 --weights {none}.pth --data {data}",
        r"no checkpoint at .*none\.pth; check the path",
    ),
    "missing refiner": (
        "apply --detector {detector} --refiner {none} --output {new}",
        r"no checkpoint at .*none; check the path",
    ),
    "no network": (
        "eval dab-detr-r50 --data {data}",
        r"could not download https://\S+ \(tests have no network\); try again, or download it by hand and put it at /",
    ),
    "weights by hand": (
        "eval group-detr-r50 --data {data}",
        r"the weights of group-detr-r50 have no address of their own; get them from https://",
    ),
    "truncated, eval": ("eval {truncated} --data {data} --output {new}", r"truncated\.safetensors is damaged"),
    "truncated, train": (
        "train --detector {truncated} --data {data} --output {new}",
        r"truncated\.safetensors is damaged or incomplete \(.*\); copy or download it again",
    ),
    "truncated, apply": (
        "apply --detector {detector} --refiner {truncated} --output {new}",
        r"truncated\.safetensors is damaged or incomplete \(.*\); copy or download it again",
    ),
    "wrong family": (
        "eval dab-detr-r50 --weights {detr} --data {data}",
        r"detr\.pth is a detr checkpoint, but dab-detr-r50 is dab_detr; name a detector of that family",
    ),
    "code as detector": ("eval dab-detr-r50 --weights {code} --data {data}", r"was not opened: it holds \w+\.system,"),
    "code as refiner": (
        "apply --detector {detector} --refiner {code} --output {new}",
        r"was not opened: it holds \w+\.system, which could run code; only checkpoints of plain tensors are read",
    ),
    "other channels": (
        "apply --detector {detector} --refiner {narrow} --output {new}",
        r"the refiner reads 8/8/8/8 channels .*, but tiny gives 16/16/24/32 channels",
    ),
    "detector as refiner": (
        "apply --detector {detector} --refiner {detector} --output {new}",
        r"holds a detector, expected a refiner",
    ),
    "refiner as detector": ("eval {best} --data {data}", r"best\.safetensors holds refiner; expected what"),
    "refiner as detector of a training": (
        "train --detector {best} --data {data} --output {new}",
        r"best\.safetensors holds refiner; expected what",
    ),
    "no COCO": (
        "eval {detector} --annotations {list} --images {images}",
        r"list\.json is not COCO JSON: no list 'images'; expected images, annotations, categories",
    ),
    "no JSON": ("eval {detector} --annotations {file} --images {images}", r"file is not JSON \(.*\); expected COCO"),
    "annotations without images": (
        "oracle-analysis --detector {detector} --annotations {stray} --images {images}",
        r"stray\.json: none of \d+ annotations can be used: annotations without images, image ids 77 \(1 in all\)",
    ),
    "train into a file": (
        "train --detector {detector} --data {data} --output {file}",
        r"file is a file; name a folder for the run",
    ),
    "eval into a file": ("eval {detector} --data {data} --output {file}", r"file is a file; name a folder"),
    "predict into a file": (
        "predict {detector} {images} --output {file}",
        r"file is a file; name a folder for the results",
    ),
    "apply into a folder": (
        "apply --detector {detector} --refiner {best} --output {folder}",
        r"folder is a folder; name a \.safetensors file to write",
    ),
    "eval's figures into a folder": (
        "eval {detector} --data {data} --output {new} --json {folder}",
        r"folder is a folder; name a file to write",
    ),
    "analysis's figures into a folder": (
        "oracle-analysis --detector {detector} --data {data} --json {folder}",
        r"folder is a folder; name a file to write",
    ),
    "unknown name": (
        "eval nonsense --data {data}",
        rf"unknown detector 'nonsense'; known: {', '.join(DETECTORS)}, the path of a \.safetensors file or of a",
    ),
    "unknown name, train": (
        "train --detector nonsense --data {data} --output {new}",
        rf"unknown detector 'nonsense'; known: {', '.join(DETECTORS)}, the path of a \.safetensors file or of a",
    ),
    "unknown device": (
        "eval {detector} --data {data} --device nonsense",
        r"no device 'nonsense' here \(.*\); pass --device cpu",
    ),
    "device without numbers": (
        "eval {detector} --data {data} --device meta",
        r"no device 'meta' here \(it holds shapes and no numbers\); pass --device cpu",
    ),
    "no data, eval": (
        "eval {detector}",
        r"the val images are not named: pass --data DIR, or both the annotation file and the image folder",
    ),
    "no data, train": ("train --detector {detector} --output {new}", r"the train images are not named: pass --data"),
    "no data, analysis": ("oracle-analysis --detector {detector}", r"the val images are not named: pass --data DIR"),
    "no source": (
        "oracle-analysis --data {data}",
        r"name one source of detections, --detector NAME or --results FILE; got neither",
    ),
    "two sources": (
        "oracle-analysis --detector {detector} --results {none} --data {data}",
        r"tiny finds its own boxes; leave out the results file .*none",
    ),
    "missing results": (
        "oracle-analysis --results {none}.json --data {data}",
        r"no results file at .*none\.json; check the path",
    ),
    "missing refined results": (
        "oracle-analysis --detector {detector} --refined {none}.json --data {data}",
        r"no results file at .*none\.json; check the path",
    ),
    "annotations as results": (
        "oracle-analysis --results {stray} --data {data}",
        r"stray\.json holds a dict; expected COCO results: a list of image_id, category_id, bbox, score",
    ),
    "COCO as LVIS": (
        "oracle-analysis --detector {detector} --data {data} --lvis",
        r"category 'ellipse' has no frequency r, c or f; leave out --lvis for COCO annotations",
    ),
    "report into a folder": (
        "oracle-analysis --detector {detector} --data {data} --html {folder}",
        r"folder is a folder; name a file to write",
    ),
    "categories into a folder": (
        "oracle-analysis --detector {detector} --data {data} --csv {folder}",
        r"folder is a folder; name a file to write",
    ),
    "annotations alone": ("eval {detector} --annotations {stray}", r"the val images are not named: pass --data DIR"),
    "images alone": ("eval {detector} --images {images} --data {data}", r"the val images are not named: pass --data"),
    "empty data folder": ("eval {detector} --data {folder}", r"no val annotations under .*folder: expected "),
    "used run folder": (
        "train --detector {detector} --data {data} --output {used}",
        r"used already holds a run; pass --resume to continue it, or name another folder",
    ),
    "resumed with other settings": (
        "train --detector {detector} --data {data} --output {used} --resume",
        r"used was started with other settings: .*; use the old ones or another folder",
    ),
    "nothing to resume": (
        "train --detector {detector} --data {data} --output {new} --resume",
        r"new holds no run to continue; leave out --resume to start one",
    ),
    "upgrade over its detector": (
        "apply --detector {detector} --refiner {best} --output {detector}",
        r"detector\.safetensors is a file that is read, and would be lost; name another to write",
    ),
    "upgrade over its refiner": (
        "apply --detector {detector} --refiner {best} --output {best}",
        r"best\.safetensors is a file that is read, and would be lost; name another to write",
    ),
    "figures over the detections": (
        "oracle-analysis --results {found} --data {data} --json {found}",
        r"found\.json is a file that is read, and would be lost; name another to write",
    ),
    "figures over figures": (
        "oracle-analysis --results {found} --data {data} --json {new} --html {new}",
        r"two of --json, --csv and --html are one file; name one for each",
    ),
    "figures over the detector": (
        "eval {detector} --data {data} --output {new} --json {detector}",
        r"detector\.safetensors is a file that is read, and would be lost; name another to write",
    ),
    "missing image": ("predict {detector} {none}.jpg --output {new}", r"no file or folder at .*none\.jpg; check the"),
    "empty image folder": ("predict {detector} {folder} --output {new}", r"folder holds no images; expected files"),
    "broken images": ("predict {detector} {file} --output {new}", r"none of 1 images could be read: .*file is not a"),
}


@pytest.mark.parametrize(("command", "expected"), BAD.values(), ids=BAD)
def test_what_a_user_can_put_right_is_one_line(
    command: str, expected: str, places: dict[str, Path], tmp_path: Path
) -> None:
    old = content(tmp_path)
    line = the_line(run(*(word.format(**places) for word in command.split())))
    assert re.search(expected, line), line
    assert content(tmp_path) == old


@pytest.mark.parametrize("force", [[], ["--force"]], ids=["plain", "forced"])
def test_other_channels_are_refused_even_by_force(force: list[str], places: dict[str, Path]) -> None:
    sources: Words = ["--detector", places["detector"], "--refiner", places["narrow"], "--output", places["new"]]
    assert "the refiner reads 8/8/8/8 channels" in the_line(run("apply", *sources, *force))
    assert not places["new"].exists()


def test_a_device_that_is_not_here_is_one_line(detector_file: Path, shapes_folder: Path) -> None:
    line = the_line(run("eval", detector_file, "--data", shapes_folder, "--device", "cuda:99"))
    assert re.search(r"no device 'cuda:99' here \(.*\); pass --device cpu$", line), line


def test_a_build_of_torch_without_the_device_is_one_line(
    detector_file: Path, shapes_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    to = Detector.to

    def fail(detector: Detector, *device: Any, **options: Any) -> Detector:
        if torch.device("cuda") in device:
            raise AssertionError("Torch not compiled with CUDA enabled")  # what a build for CPUs alone raises
        return to(detector, *device, **options)

    monkeypatch.setattr(Detector, "to", fail)
    line = the_line(run("eval", detector_file, "--data", shapes_folder, "--device", "cuda"))
    assert line.endswith("no device 'cuda' here (Torch not compiled with CUDA enabled); pass --device cpu")


@pytest.mark.parametrize("workers", ["0", "1"])
def test_a_broken_validation_image_is_one_short_line(
    workers: str, detector_file: Path, shapes_folder: Path, tmp_path: Path
) -> None:
    shutil.copytree(shapes_folder, tmp_path / "data")
    (tmp_path / "data/val/000001.jpg").write_text("no image")
    line = the_line(run("eval", detector_file, "--data", tmp_path / "data", "--workers", workers))
    assert line.startswith(f"refinebox: {tmp_path / 'data/val/000001.jpg'} is not a readable image")


def test_a_checkpoint_with_incomplete_metadata_is_one_line(
    detector: Detector, shapes_folder: Path, tmp_path: Path
) -> None:
    path = tmp_path / "incomplete.safetensors"
    checkpoint.write(path, detector.tensors(), {"kind": "detector"})
    assert str(path) in the_line(run("eval", path, "--data", shapes_folder))


def test_other_category_ids_are_matched_by_name(detector_file: Path, shapes_folder: Path, tmp_path: Path) -> None:
    validation = json.loads((shapes_folder / "annotations/instances_val.json").read_text())
    for entry in validation["categories"]:
        entry["id"] += 10
    for entry in validation["annotations"]:
        entry["category_id"] += 10
    (tmp_path / "val.json").write_text(json.dumps(validation))
    data: Words = [
        "--annotations",
        tmp_path / "val.json",
        "--images",
        shapes_folder / "val",
        "--output",
        tmp_path / "out",
    ]
    line = the_line(run("eval", detector_file, *data))
    assert "the data has 11 ellipse, 12 rectangle, 13 triangle, 14 star, 15 ring, 16 cross, " in line
    assert "the detector 1 ellipse, 2 rectangle, 3 triangle, 4 star, 5 ring, 6 cross; " in line
    assert "pass --categories name to match by name" in line
    assert not (tmp_path / "out").exists()
    done("eval", detector_file, *data, "--categories", "name")
    written = json.loads((tmp_path / "out" / "before.json").read_text())
    assert {row["category_id"] for row in written} == set(range(11, 17))


def test_a_refiner_of_other_weights_needs_force(
    detector: Detector, detector_file: Path, refiner_file: Path, tmp_path: Path
) -> None:
    tensors = detector.tensors()
    changed = {**tensors, "class_embed.bias": tensors["class_embed.bias"] + 1}
    checkpoint.write(detector_file, changed, {"kind": "detector", "detector": describe(detector)})
    output = tmp_path / "better.safetensors"
    arguments: Words = ["apply", "--detector", detector_file, "--refiner", refiner_file, "--output", output]
    assert "was trained on other weights" in the_line(run(*arguments))
    assert not output.exists()
    done(*arguments, "--force")
    assert output.exists()


def test_the_traceback_is_there_for_those_who_want_it(shapes_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REFINEBOX_DEBUG", "1")
    result = run("eval", "nonsense", "--data", shapes_folder)
    assert isinstance(result.exception, ValueError)
    assert "unknown detector 'nonsense'" in str(result.exception)
    assert result.stderr == ""


def fail(_: int) -> NoReturn:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_full_disk_leaves_the_old_checkpoint(
    upgraded: Path, detector_file: Path, refiner_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = content(tmp_path)
    monkeypatch.setattr(os, "fsync", fail)
    line = the_line(run("apply", "--detector", detector_file, "--refiner", refiner_file, "--output", upgraded))
    assert "No space left on device" in line
    assert content(tmp_path) == old


def test_a_full_disk_leaves_the_old_figures(
    detector_file: Path, shapes_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    figures = tmp_path / "figures.json"
    figures.write_text("old")
    monkeypatch.setattr(os, "fsync", fail)
    arguments: Words = ["oracle-analysis", "--detector", detector_file, "--data", shapes_folder, "--json", figures]
    assert "No space left on device" in the_line(run(*arguments))
    assert figures.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_a_real_process_prints_the_same_line(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "refinebox", "eval", str(tmp_path / "none.safetensors")]
    root = str(Path(refinebox.__file__).parents[1])
    completed = subprocess.run(
        command, env={**os.environ, "PYTHONPATH": root}, capture_output=True, text=True, check=False
    )
    assert (completed.returncode, completed.stdout) == (2, "")
    assert completed.stderr == f"refinebox: no checkpoint at {tmp_path / 'none.safetensors'}; check the path\n"


@pytest.mark.usefixtures("easily_content")
def test_a_detector_of_ones_own_is_trained_applied_evaluated_and_run(
    custom: str, shapes_folder: Path, tmp_path: Path
) -> None:
    shown = done(*quick(Path(custom), shapes_folder, tmp_path / "run"))
    command = shlex.split(shown.split("\nnext: ")[1])
    assert command[:4] == ["refinebox", "apply", "--detector", custom]
    done(*command[1:], "--force")
    weights: Words = ["--weights", "better.safetensors"]
    done("eval", custom, *weights, "--data", shapes_folder, "--json", tmp_path / "figures.json")
    assert list(json.loads((tmp_path / "figures.json").read_text())) == ["before", "clipped", "after"]
    assert done("predict", custom, shapes_folder / "val", *weights).startswith("4 images: ")
    assert done("predict", custom, shapes_folder / "val").startswith("4 images: ")
    line = the_line(run("eval", "better.safetensors", "--data", shapes_folder))
    assert line.endswith(
        f"better.safetensors is built by {custom}; pass that name as the detector and the file with --weights, "
        "which runs that code"
    )


@pytest.mark.parametrize("name", ["own_detector:number", "own_detector:missing", "missing_module:build"])
def test_a_function_that_builds_no_detector_is_one_line(name: str, custom: str, shapes_folder: Path) -> None:
    line = the_line(run("eval", name, "--data", shapes_folder))
    assert line.startswith(f"refinebox: {name} ")


def narrow_r50() -> dict[str, Tensor]:
    """DAB-DETR with the maps of an R50 and little else, in names that detrex publishes dilated models with."""
    torch.manual_seed(0)
    backbone = ResNetSizes(True, 8, (1, 1, 1, 1), (4, 4, 8, 8), (256, 512, 1024, 2048))
    network = DabDetr(
        Sizes(backbone, width=32, feedforward=32, encoder_layers=1, decoder_layers=1, queries=120, columns=80)
    )
    return {key.replace("backbone.0.body.", "backbone.body."): x for key, x in network.state_dict().items()}


def test_published_weights_and_their_published_refiner_need_no_training(
    shared: Path, shapes_folder: Path, tmp_path: Path
) -> None:
    weights, refiner = cached("dab-detr-r50"), refiner_file_of("dab-detr-r50").path
    for path in (weights, refiner):
        path.parent.mkdir(parents=True)
    torch.save({"model": narrow_r50()}, weights)
    shutil.copyfile(shared / "data/refinebox-official/rb_dab_detr_r50_12ep.pth", refiner)
    output = tmp_path / "better.safetensors"
    arguments: Words = ["apply", "--refiner", "published", "--output", output, "--detector"]
    shown = done(*arguments, "dab-detr-r50")
    assert shown.startswith(f"wrote {output}: its AP is not known\ncost: refinement adds 0.")

    model = refinebox.load(output)
    wanted = RefinedDetector(load_detector("dab-detr-r50"), load_refiner(refiner))
    images, sizes = torch.linspace(-2, 2, 3 * 96 * 128).view(1, 3, 96, 128), torch.tensor([[96, 128]])
    assert torch.equal(model(images, sizes).boxes, wanted(images, sizes).boxes)
    assert (model.category_ids, model.category_names) == (tuple(COCO_NAMES), COCO_NAMES)
    assert model.profile.layout == "detrex"
    photo = shapes_folder / "val/000001.jpg"
    assert done("predict", output, photo, "--short-side", "96").startswith("1 images: ")
    rows = json.loads(Path("predictions/results.json").read_text())
    with Image.open(photo) as image:
        width, height = image.size
    for x, y, w, h in (row["bbox"] for row in rows):
        assert 0 <= x <= x + w <= width + 1e-2
        assert 0 <= y <= y + h <= height + 1e-2

    own: Words = ["dab-detr-r50", "--weights", weights]
    assert "the published refiner fits only the published weights" in the_line(run(*arguments, *own))
    done(*arguments, *own, "--force")
    assert "no refiner is published for dn-detr-r50" in the_line(run(*arguments, "dn-detr-r50"))


def test_the_options_of_a_training_stand_in_groups() -> None:
    shown = done("train", "--help")
    places = [shown.index(f"─ {title} ─") for title in ("Detector", "Data", "Output", "Recipe", "Speed and memory")]
    assert len(set(places)) == 5


def test_validation_images_can_be_kept_out_of_the_training_images(
    detector_file: Path, shapes_folder: Path, tmp_path: Path
) -> None:
    images: Words = ["--annotations", shapes_folder / "annotations/instances_train.json"]
    images += ["--images", shapes_folder / "train"]
    quick_run: Words = ["train", "--detector", detector_file, *images, "--epochs", "1", "--batch-size", "2"]
    line = the_line_after(run(*quick_run, "--output", tmp_path / "none"))
    assert line.endswith("; or keep some training images for it: --val-fraction 0.1")
    shown = done(*quick_run, "--val-fraction", "0.34", "--output", tmp_path / "run").splitlines()
    assert re.match(r"val: 2 images, \d+ boxes, 6 categories, kept out of the training images by seed 0", shown[1])
    assert json.loads((tmp_path / "run/config.json").read_text())["training_images"] == 4


def the_line_after(result: Any) -> str:
    """The line that a command ends with that has said something before."""
    assert (result.exit_code, len(result.stderr.splitlines())) == (2, 1), result.output
    return result.stderr.splitlines()[0]


def test_validation_images_that_are_training_images_are_told(
    detector_file: Path, shapes_folder: Path, tmp_path: Path
) -> None:
    same: Words = []
    for prefix in ("--", "--val-"):
        same += [f"{prefix}annotations", shapes_folder / "annotations/instances_train.json"]
        same += [f"{prefix}images", shapes_folder / "train"]
    shown = done("train", "--detector", detector_file, *same, "--epochs", "1", "--output", tmp_path / "run")
    assert "val: 6 of its 6 images are training images too, so AP on them says little about others" in shown


def test_ids_are_written_as_they_came(detector_file: Path, shapes_folder: Path, tmp_path: Path) -> None:
    content = json.loads((shapes_folder / "annotations/instances_val.json").read_text())
    for entry in content["images"]:
        entry["id"] = 2**64 + entry["id"]
    for entry in content["annotations"]:
        entry["image_id"] = 2**64 + entry["image_id"]
    (tmp_path / "val.json").write_text(json.dumps(content))
    named: Words = ["--annotations", tmp_path / "val.json", "--images", shapes_folder / "val"]
    done("eval", detector_file, *named, "--output", tmp_path / "out")
    rows = json.loads((tmp_path / "out/before.json").read_text())
    assert {row["image_id"] for row in rows} == {2**64 + number for number in range(1, 5)}
    shown = done("oracle-analysis", "--results", tmp_path / "out/before.json", *named[:2])
    assert "4 image ids numbered inside, such as 18446744073709551617" in shown


def test_a_mistyped_detector_gets_the_nearest(shapes_folder: Path) -> None:
    line = the_line(run("eval", "dab-detr-shape", "--data", shapes_folder))
    assert "unknown detector 'dab-detr-shape' (did you mean dab-detr-shapes?)" in line
