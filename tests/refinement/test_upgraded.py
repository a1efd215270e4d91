"""The upgraded file: what is in it, what it refuses, and that it runs as its parts do."""

import errno
import hashlib
import importlib
import os
import sys
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import NoReturn

import pytest
import safetensors.torch
import torch
from PIL import Image

import refinebox
from refinebox.data import shapes
from refinebox.data.annotations import CocoData
from refinebox.detection.choice import Choice
from refinebox.detection.detector import Detector
from refinebox.detection.published import DETECTORS
from refinebox.detection.zoo import build, describe, load_detector
from refinebox.evaluation.evaluator import METRICS, Metrics
from refinebox.evaluation.link import Link
from refinebox.files import checkpoint
from refinebox.files.download import home
from refinebox.refinement.refined_detector import RefinedDetector
from refinebox.refinement.refiner import Refiner
from refinebox.refinement.upgraded import apply, load, open_model, published_refiner
from refinebox.training.run import write_refiner
from refinebox.training.settings import Settings

BEFORE: Metrics = {**dict.fromkeys(METRICS, 40.0), "APs": None}
AFTER: Metrics = {**BEFORE, "AP": 41.5}
IMAGES, SIZES = torch.linspace(-2, 2, 3 * 64 * 80).view(1, 3, 64, 80), torch.tensor([[64, 80]])


@pytest.fixture
def detector_file(detector: Detector, tmp_path: Path) -> Path:
    path = tmp_path / "detector.safetensors"
    checkpoint.write(path, detector.tensors(), {"kind": "detector", "detector": describe(detector)})
    return path


def new_refiner(detector: Detector, steps: int = 3) -> Refiner:
    torch.manual_seed(7)
    return Refiner(detector.channels, detector.strides, steps)


def written(path: Path, detector: Detector, *, after: float | None = 41.5, steps: int = 3) -> Path:
    best = {"epoch": 1, "before": BEFORE, "after": {**AFTER, "AP": after}}
    write_refiner(path, new_refiner(detector, steps), detector, asdict(Settings(steps=steps)), best)
    return path


@pytest.fixture
def refiner_file(detector: Detector, tmp_path: Path) -> Path:
    return written(tmp_path / "best.safetensors", detector)


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return tmp_path / "better.safetensors"


@pytest.mark.parametrize("steps", [1, 3])
def test_an_upgraded_file_runs_as_its_parts_do(
    steps: int, detector: Detector, detector_file: Path, tmp_path: Path, output: Path
) -> None:
    apply(detector, detector_file, written(tmp_path / "best.safetensors", detector, steps=steps), output)
    upgraded = refinebox.load(output)
    assert isinstance(upgraded, RefinedDetector)
    model = RefinedDetector(detector, new_refiner(detector, steps))
    for loaded, wanted in zip(
        upgraded.before_and_after(IMAGES, SIZES), model.before_and_after(IMAGES, SIZES), strict=True
    ):
        assert torch.equal(loaded.boxes, wanted.boxes)
        assert torch.equal(loaded.logits, wanted.logits)
    assert upgraded.refiner.steps == steps
    assert upgraded.top == model.top
    assert upgraded.detector.weights_sha256() == detector.weights_sha256()
    assert not any(parameter.requires_grad for parameter in upgraded.detector.parameters())


def test_an_upgraded_file_says_what_it_was_made_from(
    detector: Detector, detector_file: Path, refiner_file: Path, output: Path
) -> None:
    returned = apply(detector, detector_file, refiner_file, output)
    _, metadata = checkpoint.read(output)
    assert metadata["kind"] == returned["kind"] == "upgraded detector"
    assert metadata["detector"]["categories"] == [
        {"id": category_id, "name": name} for category_id, name in enumerate(shapes.CATEGORIES, start=1)
    ]
    assert metadata["sources"] == {
        part: {"file": path.name, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
        for part, path in (("detector", detector_file), ("refiner", refiner_file))
    }
    assert (metadata["before"], metadata["after"]) == (BEFORE, AFTER)
    assert metadata["refiner"]["settings"]["learning_rate"] == Settings().learning_rate
    assert metadata["refiner"]["top"] == 100


def test_the_categories_survive(detector: Detector, detector_file: Path, refiner_file: Path, output: Path) -> None:
    apply(detector, detector_file, refiner_file, output)
    upgraded = load(output)
    assert upgraded.category_ids == detector.category_ids
    assert upgraded.category_names == detector.category_names


def test_a_published_refiner_has_no_history(
    detector: Detector, detector_file: Path, tmp_path: Path, output: Path
) -> None:
    detector = build(detector.tensors(), replace(detector.profile, settings={}), "undilated")
    refiner, published = Refiner(detector.channels), tmp_path / "model_final.pth"
    torch.save({"model": refiner.state_dict()}, published)
    metadata = apply(detector, detector_file, published, output)
    assert metadata["before"] is metadata["after"] is None
    assert metadata["sources"]["refiner"]["sha256"] == hashlib.sha256(published.read_bytes()).hexdigest()
    model = RefinedDetector(detector, refiner)
    assert torch.equal(load(output)(IMAGES, SIZES).boxes, model(IMAGES, SIZES).boxes)


def test_the_input_size_is_that_of_the_training(
    make_detector: Callable[..., Detector], detector: Detector, detector_file: Path, tmp_path: Path, output: Path
) -> None:
    refiner_file = written(tmp_path / "best.safetensors", make_detector(short_side=96))
    apply(detector, detector_file, refiner_file, output)
    profile = load(output).profile
    assert (profile.input.short_side, profile.input.long_side) == (96, 192)


def test_a_refiner_of_other_weights_is_refused(
    make_detector: Callable[..., Detector], detector: Detector, detector_file: Path, tmp_path: Path, output: Path
) -> None:
    other = make_detector(seed=1)
    refiner_file = written(tmp_path / "best.safetensors", other)
    expected = (
        rf"best\.safetensors was trained on other weights \(tiny, sha256 {other.weights_sha256()[:12]}\) than these "
        rf"\(tiny, sha256 {detector.weights_sha256()[:12]}\); train one on these, or pass --force"
    )
    with pytest.raises(ValueError, match=expected):
        apply(detector, detector_file, refiner_file, output)
    assert not output.exists()


def test_a_refiner_that_makes_boxes_worse_is_refused(
    detector: Detector, detector_file: Path, tmp_path: Path, output: Path
) -> None:
    refiner_file = written(tmp_path / "best.safetensors", detector, after=39.9)
    expected = (
        r"best\.safetensors made validation AP worse, 40\.0 → 39\.9 \(-0\.1\); "
        r"train it longer or on more images, or pass --force"
    )
    with pytest.raises(ValueError, match=expected):
        apply(detector, detector_file, refiner_file, output)
    assert not output.exists()


def test_a_refiner_that_held_out_images_do_not_speak_for_is_refused(
    detector: Detector, detector_file: Path, tmp_path: Path, output: Path
) -> None:
    refiner_file = written(tmp_path / "best.safetensors", detector, after=40.5)
    tensors, history = checkpoint.read(refiner_file)
    history["choice"] = {"images": 20, "refine": False, "boxes": {"mean": 0.5, "low": -1.0, "high": 2.0}}
    checkpoint.write(refiner_file, tensors, history)
    expected = (
        r"best\.safetensors is not worth applying: 20 training images that were held out say \+0\.5 "
        r"\(95 %: -1\.0 to \+2\.0\); train it longer or on more images, or pass --force"
    )
    with pytest.raises(ValueError, match=expected):
        apply(detector, detector_file, refiner_file, output)
    apply(detector, detector_file, refiner_file, output, force=True)
    assert checkpoint.read_metadata(output)["choice"] == history["choice"]


@pytest.mark.parametrize("after", [40.0, None], ids=["equal", "unknown"])
def test_a_refiner_that_is_not_known_to_be_worse_is_taken(
    after: float | None, detector: Detector, detector_file: Path, tmp_path: Path, output: Path
) -> None:
    apply(detector, detector_file, written(tmp_path / "best.safetensors", detector, after=after), output)
    assert isinstance(load(output), RefinedDetector)


@pytest.mark.parametrize(("seed", "after"), [(1, 41.5), (0, 39.0), (1, 39.0)], ids=["other", "worse", "both"])
def test_force_overrides_the_history(
    seed: int,
    after: float,
    make_detector: Callable[..., Detector],
    detector: Detector,
    detector_file: Path,
    tmp_path: Path,
    output: Path,
) -> None:
    refiner_file = written(tmp_path / "best.safetensors", make_detector(seed=seed), after=after)
    metadata = apply(detector, detector_file, refiner_file, output, force=True)
    assert metadata["after"]["AP"] == after
    model = RefinedDetector(detector, new_refiner(detector))
    assert torch.equal(load(output)(IMAGES, SIZES).boxes, model(IMAGES, SIZES).boxes)


@pytest.mark.parametrize("force", [True, False])
def test_other_channels_are_refused_whatever_is_asked(
    force: bool, detector: Detector, detector_file: Path, tmp_path: Path, output: Path
) -> None:
    refiner = Refiner((8, 8, 8, 8), detector.strides)
    checkpoint.write(
        tmp_path / "best.safetensors", refiner.state_dict(), {"kind": "refiner", "strides": detector.strides}
    )
    expected = r"reads 8/8/8/8 channels at strides 4/8/16/16, but tiny gives 16/16/24/32 channels at strides 4/8/16/16"
    with pytest.raises(ValueError, match=expected):
        apply(detector, detector_file, tmp_path / "best.safetensors", output, force=force)
    assert not output.exists()


def test_a_folder_is_no_output(detector: Detector, detector_file: Path, refiner_file: Path, tmp_path: Path) -> None:
    with pytest.raises(IsADirectoryError, match=r" is a folder; name a \.safetensors file to write$"):
        apply(detector, detector_file, refiner_file, tmp_path)


def test_a_detector_is_no_refiner(detector: Detector, detector_file: Path, output: Path) -> None:
    with pytest.raises(ValueError, match=r"detector\.safetensors holds a detector, expected a refiner"):
        apply(detector, detector_file, detector_file, output)


def test_a_write_that_fails_leaves_the_old_file_as_it_was(
    detector: Detector, detector_file: Path, refiner_file: Path, output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: int) -> NoReturn:
        raise OSError(errno.ENOSPC, "No space left on device")

    apply(detector, detector_file, refiner_file, output)
    old, names = output.read_bytes(), sorted(os.listdir(output.parent))
    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="No space left on device"):
        apply(detector, detector_file, refiner_file, output, force=True)
    assert output.read_bytes() == old
    assert sorted(os.listdir(output.parent)) == names


def test_whatever_is_written_can_be_loaded(
    detector: Detector, detector_file: Path, refiner_file: Path, output: Path
) -> None:
    """Refining twice may be refused, but must not end in a file that nothing reads."""
    apply(detector, detector_file, refiner_file, output)
    twice = output.with_name("twice.safetensors")
    try:
        apply(load(output), output, refiner_file, twice, force=True)
    except ValueError:
        assert not twice.exists()
    else:
        assert isinstance(load(twice), RefinedDetector)


def test_a_plain_detector_file_is_loaded_too(detector: Detector, detector_file: Path) -> None:
    loaded = load(str(detector_file))
    assert not isinstance(loaded, RefinedDetector)
    assert loaded.profile.input == detector.profile.input
    assert torch.equal(loaded(IMAGES, SIZES).boxes, detector(IMAGES, SIZES).boxes)


def test_a_refiner_file_is_no_detector(refiner_file: Path) -> None:
    with pytest.raises(ValueError, match=r"best\.safetensors holds refiner; expected what refinebox apply wrote"):
        load(refiner_file)


@pytest.mark.parametrize("metadata", [None, {"format": "pt"}])
def test_a_foreign_file_is_no_detector(metadata: dict[str, str] | None, tmp_path: Path) -> None:
    safetensors.torch.save_file({"weight": torch.zeros(2)}, tmp_path / "foreign.safetensors", metadata)
    expected = r"foreign\.safetensors holds no refinebox detector; expected what refinebox apply wrote"
    with pytest.raises(ValueError, match=expected):
        load(tmp_path / "foreign.safetensors")


def test_a_missing_file_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no checkpoint at .*none\.safetensors; check the path"):
        load(tmp_path / "none.safetensors")


@pytest.mark.parametrize("dropped", ["detector.class_embed.bias", "refiner.channel_mapper.fpn_output3.bias"])
def test_a_file_that_lacks_a_tensor_is_refused(
    dropped: str, detector: Detector, detector_file: Path, refiner_file: Path, output: Path
) -> None:
    apply(detector, detector_file, refiner_file, output)
    tensors, metadata = checkpoint.read(output)
    checkpoint.write(output, {name: tensor for name, tensor in tensors.items() if name != dropped}, metadata)
    part, _, name = dropped.partition(".")
    complete = sum(key.startswith(f"{part}.") for key in tensors)
    with pytest.raises(ValueError, match=rf": the checkpoint lacks {name}; expected {complete} tensors$"):
        load(output)


REFINED = "rb_detr_r50_12ep"  # of detr-r50


@pytest.fixture
def downloaded() -> Path:
    """A file where the published refiner of detr-r50 is kept."""
    path = home() / "refiners" / f"{REFINED}.pth"
    path.parent.mkdir(parents=True)
    path.write_text("a refiner")
    return path


def test_a_published_refiner_is_taken_from_the_cache(downloaded: Path) -> None:
    assert published_refiner("detr-r50", None) == downloaded


def test_a_published_refiner_is_downloaded_otherwise() -> None:
    expected = rf"^could not download https://\S+/{REFINED}/model_final\.pth \(tests have no network\); try again"
    with pytest.raises(ConnectionError, match=expected):
        published_refiner("detr-r50", None)


def test_a_detector_without_a_published_refiner_is_told(downloaded: Path) -> None:
    with pytest.raises(ValueError, match=r"^no refiner is published for dn-detr-r50; there are some for detr-r50, "):
        published_refiner("dn-detr-r50", None)


@pytest.mark.parametrize("name", ["detr-r50", "dab-detr-r50"], ids=["other hash", "no hash published"])
def test_a_published_refiner_is_for_the_published_weights(name: str, tmp_path: Path) -> None:
    (tmp_path / "weights.pth").write_text("weights")
    expected = (
        rf"^the published refiner fits only the published weights \({DETECTORS[name].source}\), and "
        rf"{tmp_path / 'weights.pth'} cannot be told to be these; leave out --weights, train a refiner of your own, "
        r"or pass --force$"
    )
    with pytest.raises(ValueError, match=expected):
        published_refiner(name, tmp_path / "weights.pth")


def test_the_published_weights_may_lie_anywhere(
    downloaded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "weights.pth").write_text("weights")
    sha256 = hashlib.sha256(b"weights").hexdigest()
    monkeypatch.setitem(DETECTORS, "detr-r50", replace(DETECTORS["detr-r50"], sha256=sha256[:8]))
    assert published_refiner("detr-r50", tmp_path / "weights.pth") == downloaded


def test_force_takes_a_published_refiner_for_other_weights(downloaded: Path, tmp_path: Path) -> None:
    (tmp_path / "weights.pth").write_text("weights")
    assert published_refiner("detr-r50", tmp_path / "weights.pth", force=True) == downloaded


def test_missing_weights_are_not_found(downloaded: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"none\.pth"):
        published_refiner("detr-r50", tmp_path / "none.pth")


@pytest.fixture
def upgraded(custom: str, tmp_path: Path, output: Path) -> Path:
    """A custom detector with a refiner; its weights are not those that its function gives."""
    detector = load_detector(custom)
    detector.get_parameter("head.bias").data += 1
    refiner_file = written(tmp_path / "best.safetensors", detector)
    metadata = apply(detector, None, refiner_file, output)
    assert metadata["sources"]["detector"] == {"file": None, "sha256": detector.weights_sha256()}
    return output


def test_a_custom_detector_runs_as_its_parts_do(custom: str, upgraded: Path) -> None:
    for model in (load(upgraded, custom), open_model(custom, upgraded)):
        assert isinstance(model, RefinedDetector)
        detector = load_detector(custom)
        detector.get_parameter("head.bias").data += 1
        wanted = RefinedDetector(detector, new_refiner(detector))(IMAGES, SIZES)
        found = model(IMAGES, SIZES)
        assert torch.equal(found.boxes, wanted.boxes)
        assert torch.equal(found.logits, wanted.logits)
        assert model.category_names == detector.category_names


@pytest.mark.parametrize("builder", [None, "own_detector:number", "other:build"])
def test_a_file_alone_runs_no_code(builder: str | None, upgraded: Path) -> None:
    sys.modules.pop("own_detector")
    expected = (
        rf"^the detector in {upgraded} is built by own_detector:build; pass that name as the detector and the file "
        r"with --weights, which runs that code$"
    )
    with pytest.raises(ValueError, match=expected):
        load(upgraded, builder)
    with pytest.raises(ValueError, match=expected):
        open_model(str(upgraded)) if builder is None else open_model(builder, upgraded)
    assert "own_detector" not in sys.modules


def test_a_custom_detector_keeps_the_input_size_of_the_training(custom: str, tmp_path: Path, output: Path) -> None:
    detector = load_detector(custom)
    detector.resize(96, 160)
    apply(load_detector(custom), None, written(tmp_path / "best.safetensors", detector), output)
    profile = load(output, custom).profile
    assert (profile.input.short_side, profile.input.long_side) == (96, 160)


def test_a_custom_detector_that_changed_is_refused(custom: str, upgraded: Path) -> None:
    module = Path("own_detector.py")
    module.write_text(module.read_text().replace("self.head =", "self.tail = nn.Linear(2, 2)\n        self.head ="))
    sys.modules.pop("own_detector")
    importlib.invalidate_caches()
    with pytest.raises(ValueError, match=rf"^{upgraded}: the checkpoint lacks tail\.weight, tail\.bias; expected 6"):
        load(upgraded, custom)


def test_a_name_means_a_detector_or_an_upgraded_one(
    custom: str, detector: Detector, detector_file: Path, refiner_file: Path, tmp_path: Path, output: Path
) -> None:
    apply(detector, detector_file, refiner_file, output)
    assert isinstance(open_model(str(output)), RefinedDetector)
    assert not isinstance(open_model(str(detector_file)), RefinedDetector)
    assert open_model("dab-detr-r50", detector_file).weights_sha256() == detector.weights_sha256()
    assert open_model(custom).profile.name == "grid"
    weights = {name: tensor + 1 for name, tensor in load_detector(custom).state_dict().items()}
    torch.save(weights, tmp_path / "weights.pth")
    assert torch.equal(open_model(custom, tmp_path / "weights.pth").state_dict()["head.bias"], weights["head.bias"])


def test_categories_that_were_learned_are_named(
    detector: Detector, detector_file: Path, tmp_path: Path, output: Path
) -> None:
    """A checkpoint of other classes says nothing of them; the refiner's training data did."""
    detector.category_ids, detector.category_names = tuple(range(6)), {}
    learned = [{"id": 10 * number, "name": f"thing {number}"} for number in range(1, 7)]
    best = {"epoch": 1, "before": BEFORE, "after": AFTER, "categories": learned}
    write_refiner(tmp_path / "best.safetensors", new_refiner(detector), detector, asdict(Settings()), best)
    apply(detector, detector_file, tmp_path / "best.safetensors", output)
    upgraded = load(output)
    assert upgraded.category_ids == (10, 20, 30, 40, 50, 60)
    assert upgraded.category_names == {category["id"]: category["name"] for category in learned}


def test_names_that_a_detector_has_are_kept(
    detector: Detector, detector_file: Path, tmp_path: Path, output: Path
) -> None:
    learned = [{"id": 10 * number, "name": f"thing {number}"} for number in range(1, 7)]
    best = {"epoch": 1, "before": BEFORE, "after": AFTER, "categories": learned}
    write_refiner(tmp_path / "best.safetensors", new_refiner(detector), detector, asdict(Settings()), best)
    apply(detector, detector_file, tmp_path / "best.safetensors", output)
    assert load(output).category_names == detector.category_names == dict(enumerate(shapes.CATEGORIES, start=1))


def test_data_of_fewer_categories_leaves_a_file_that_can_be_loaded(
    detector: Detector, detector_file: Path, training: CocoData, tmp_path: Path, output: Path
) -> None:
    """The data has the detector's first three categories alone; the others keep their columns."""
    detector.category_ids, detector.category_names = tuple(range(1, 7)), {}
    data = replace(training, categories={i: training.categories[i] for i in (1, 2, 3)})
    learned = Link.between(detector, data).categories(data)
    best = {"epoch": 1, "before": BEFORE, "after": AFTER, "categories": learned}
    write_refiner(tmp_path / "best.safetensors", new_refiner(detector), detector, asdict(Settings()), best)
    apply(detector, detector_file, tmp_path / "best.safetensors", output)
    assert load(output).category_ids == (1, 2, 3, 4, 5, 6)


@pytest.mark.parametrize("refined", [True, False], ids=["refiner", "voting alone"])
def test_voting_is_part_of_the_file(
    refined: bool, detector: Detector, detector_file: Path, refiner_file: Path, output: Path
) -> None:
    """Without a refiner the file holds the detector alone, which ends as it did but for the votes."""
    detector.profile = replace(detector.profile, choice=Choice("suppression", iou=0.5, above=0.0))
    before = detector.predict([Image.new("RGB", (80, 64))])[0]
    apply(detector, detector_file, refiner_file if refined else None, output, voting=True)
    model = load(output)
    assert model.profile.final == Choice("suppression", iou=0.5, above=0.0, voting=0.75)
    assert isinstance(model, RefinedDetector) == refined
    if not refined:
        after = model.predict([Image.new("RGB", (80, 64))])[0]
        assert torch.equal(after.scores, before.scores)
        assert not torch.equal(after.boxes, before.boxes)
