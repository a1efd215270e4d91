"""From a name or a file to a frozen detector, and what is said where that cannot be."""

import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from refinebox.data import shapes
from refinebox.detection import zoo
from refinebox.detection.detector import Detector
from refinebox.detection.entry import cached
from refinebox.detection.profile import Choice, InputFormat, Profile
from refinebox.detection.published import DETECTORS
from refinebox.detection.zoo import describe, load_detector, profile_from, weights_path
from refinebox.files import checkpoint

FORM = InputFormat("letterbox", height=320, width=640, mean=(0.5, 0.5, 0.5), resampling="bicubic", multiple=32)
BUNDLED = Path(zoo.__file__).parents[1] / "dab_detr_shapes.safetensors"
IMAGES, SIZES = torch.linspace(-2, 2, 3 * 64 * 80).view(1, 3, 64, 80), torch.tensor([[64, 80]])


@pytest.fixture
def bundled() -> Detector:
    if not BUNDLED.is_file():
        pytest.skip(f"the bundled weights are not at {BUNDLED}")
    return load_detector("dab-detr-shapes")


def saved(path: Path, tensors: dict[str, Tensor], **beside: Any) -> Path:
    torch.save({"model": tensors, **beside}, path)
    return path


def test_the_bundled_detector_knows_the_generated_shapes(bundled: Detector) -> None:
    assert bundled.category_ids == (1, 2, 3, 4, 5, 6)
    assert tuple(bundled.category_names[category_id] for category_id in bundled.category_ids) == shapes.CATEGORIES
    assert bundled.profile.family == "dab_detr"
    output = bundled(torch.zeros(1, 3, 64, 64), torch.tensor([[64, 64]]))
    assert output.logits.shape[-1] == 6
    assert output.boxes.isfinite().all()


def test_the_bundled_weights_are_small() -> None:
    if not BUNDLED.is_file():
        pytest.skip(f"the bundled weights are not at {BUNDLED}")
    assert DETECTORS["dab-detr-shapes"].bundled == BUNDLED
    assert BUNDLED.stat().st_size <= 10_000_000


@pytest.mark.parametrize("weights", [None, "file.pth"])
def test_an_unknown_name_lists_the_known_ones(weights: str | None) -> None:
    expected = (
        rf"^unknown detector 'nonsense'; known: {', '.join(DETECTORS)}, the path of a \.safetensors file or of a "
        r"transformers folder, organisation/name of the Hugging Face hub, torchvision:NAME, effdet:NAME, "
        r"libreyolo:NAME, or package\.module:function$"
    )
    with pytest.raises(ValueError, match=expected):
        load_detector("nonsense", weights)
    with pytest.raises(ValueError, match=expected):
        weights_path("nonsense", weights)


DOWNLOADED = {name: file for name, entry in DETECTORS.items() if (file := entry.file(name))}
BY_HAND = [name for name, entry in DETECTORS.items() if not entry.bundled and not entry.file(name)]


@pytest.mark.parametrize("name", DOWNLOADED)
def test_without_a_network_the_address_and_the_place_are_told(name: str) -> None:
    file = DETECTORS[name].file(name)
    assert file is not None
    message = f"could not download {file.url} (tests have no network); try again, or download it by hand and put it at "
    with pytest.raises(ConnectionError, match=f"^{re.escape(message + str(file.path))}$"):
        load_detector(name)


@pytest.mark.parametrize("name", BY_HAND)
def test_weights_without_an_address_are_to_be_fetched_by_hand(name: str) -> None:
    message = (
        f"the weights of {name} have no address of their own; get them from {DETECTORS[name].source} and put the file "
        f"at {cached(name)}, or pass it as weights (--weights FILE)"
    )
    for function in (load_detector, weights_path):
        with pytest.raises(FileNotFoundError, match=f"^{re.escape(message)}$"):
            function(name)


@pytest.mark.parametrize("name", ["dab-detr-r50", "dab-detr-r50-dc5-fixxy"])
def test_what_was_downloaded_or_put_there_is_used(name: str, detector: Detector) -> None:
    path = weights_file(name)
    path.parent.mkdir(parents=True)
    saved(path, detector.tensors())
    assert load_detector(name).weights_sha256() == detector.weights_sha256()


def weights_file(name: str) -> Path:
    file = DETECTORS[name].file(name)
    return file.path if file else cached(name)


def test_the_path_that_is_read_is_told(tmp_path: Path) -> None:
    assert weights_path("dab-detr-shapes") == BUNDLED
    assert weights_path("dab-detr-r50", tmp_path / "dab.pth") == tmp_path / "dab.pth"
    assert weights_path("folder/mine.safetensors") == Path("folder/mine.safetensors")
    assert weights_path(str(tmp_path)) == tmp_path


def test_a_missing_file_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no checkpoint at .*none\.pth; check the path"):
        load_detector("dab-detr-r50", tmp_path / "none.pth")
    with pytest.raises(FileNotFoundError, match=r"no checkpoint at .*none\.safetensors; check the path"):
        load_detector(str(tmp_path / "none.safetensors"))


def test_our_own_file_gives_the_same_detector(detector: Detector, tmp_path: Path) -> None:
    path = tmp_path / "mine.safetensors"
    checkpoint.write(path, detector.tensors(), {"kind": "detector", "detector": describe(detector)})
    for loaded in (load_detector(str(path)), load_detector("dab-detr-r50", path)):
        assert torch.equal(loaded(IMAGES, SIZES).boxes, detector(IMAGES, SIZES).boxes)
        assert loaded.profile == detector.profile
        assert loaded.weights_sha256() == detector.weights_sha256()


def test_the_authors_file_gives_the_same_detector(detector: Detector, tmp_path: Path) -> None:
    tensors = detector.tensors()
    doubled = {f"transformer.decoder.{name}": t for name, t in tensors.items() if name.startswith("bbox_embed.")}
    counters = {"backbone.0.body.bn1.num_batches_tracked": torch.tensor(5)}
    path = saved(tmp_path / "checkpoint.pth", {**tensors, **doubled, **counters}, epoch=49)
    loaded = load_detector("dab-detr-r50-dc5-fixxy", path)
    assert len(doubled) == 6
    assert torch.equal(loaded(IMAGES, SIZES).boxes, detector(IMAGES, SIZES).boxes)
    assert loaded.category_ids == (0, 1, 2, 3, 4, 5)
    assert (loaded.profile.name, loaded.profile.input.short_side, loaded.profile.input.long_side) == (
        "dab-detr-r50-dc5-fixxy",
        800,
        1333,
    )


def test_settings_of_the_table_reach_the_network(detector: Detector, tmp_path: Path) -> None:
    path = saved(tmp_path / "checkpoint.pth", detector.tensors())
    strides = [load_detector(name, path).strides for name in ("dab-detr-r50", "dab-detr-r50-dc5")]
    assert strides == [(4, 8, 16, 32), (4, 8, 16, 16)]


def test_a_file_without_metadata_needs_a_name(detector: Detector, tmp_path: Path) -> None:
    path = tmp_path / "foreign.safetensors"
    checkpoint.write(path, detector.tensors(), {})
    expected = r"foreign\.safetensors does not say which detector it is; name one and pass the file with --weights"
    with pytest.raises(ValueError, match=expected):
        load_detector(str(path))


@pytest.mark.parametrize("kind", ["refiner", "upgraded detector"])
def test_other_files_of_ours_are_refused(kind: str, tmp_path: Path) -> None:
    checkpoint.write(tmp_path / "best.safetensors", {"weight": torch.zeros(1)}, {"kind": kind})
    with pytest.raises(ValueError, match=rf"best\.safetensors holds a {kind}, expected a detector$"):
        load_detector("dab-detr-r50", tmp_path / "best.safetensors")


@pytest.mark.parametrize(
    ("names", "family"),
    [
        (["query_embed.weight", "class_embed.weight"], "detr"),
        (["refpoint_embed.weight", "label_enc.weight"], "dn_detr"),
        (["query_embed.weight", "transformer.decoder.ref_point_head.layers.0.weight"], "conditional_detr"),
    ],
)
def test_a_file_of_another_family_is_named(names: list[str], family: str, tmp_path: Path) -> None:
    path = saved(tmp_path / "other.pth", {name: torch.zeros(2, 2) for name in names})
    expected = rf"other\.pth is a {family} checkpoint, but dab-detr-r50 is dab_detr; name a detector of that family$"
    with pytest.raises(ValueError, match=expected):
        load_detector("dab-detr-r50", path)


def test_a_file_that_is_not_detr_like_is_refused(tmp_path: Path) -> None:
    names = ["backbone.0.body.conv1.weight", "rpn.head.weight", "box.weight", "mask.weight"]
    path = saved(tmp_path / "other.pth", {name: torch.zeros(2) for name in names})
    expected = r"other\.pth is no DETR-like checkpoint; its first tensors are " + ", ".join(names[:3]) + "$"
    with pytest.raises(ValueError, match=expected):
        load_detector("dab-detr-r50", path)


def test_one_missing_tensor_is_named(detector: Detector, tmp_path: Path) -> None:
    tensors = detector.tensors()
    del tensors["class_embed.bias"]
    expected = rf"^dab-detr-r50: the checkpoint lacks class_embed\.bias; expected {len(tensors) + 1} tensors$"
    with pytest.raises(ValueError, match=expected):
        load_detector("dab-detr-r50", saved(tmp_path / "file.pth", tensors))


def test_many_missing_tensors_are_counted(detector: Detector, tmp_path: Path) -> None:
    tensors = detector.tensors()
    fewer = {name: tensor for name, tensor in tensors.items() if not name.startswith("bbox_embed.")}
    expected = (
        r"^dab-detr-r50: the checkpoint lacks bbox_embed\.layers\.0\.weight, bbox_embed\.layers\.0\.bias, "
        rf"bbox_embed\.layers\.1\.weight and 3 more; expected {len(tensors)} tensors$"
    )
    with pytest.raises(ValueError, match=expected):
        load_detector("dab-detr-r50", saved(tmp_path / "file.pth", fewer))


@pytest.mark.parametrize(
    "name",
    [
        "input_proj.weight",
        "class_embed.weight",
        "transformer.encoder.layers.0.linear1.weight",
        "backbone.0.body.conv1.weight",
        "backbone.0.body.layer2.0.conv2.weight",
    ],
)
def test_a_missing_tensor_that_tells_a_size_is_named(name: str, detector: Detector, tmp_path: Path) -> None:
    tensors = detector.tensors()
    del tensors[name]
    expected = rf"^dab-detr-r50: the checkpoint has no tensor '{name}'; is it complete\?$"
    with pytest.raises(ValueError, match=expected):
        load_detector("dab-detr-r50", saved(tmp_path / "file.pth", tensors))


def test_a_block_that_cannot_be_counted_is_an_error(detector: Detector, tmp_path: Path) -> None:
    tensors = detector.tensors()
    del tensors["backbone.0.body.layer1.0.conv1.weight"]
    with pytest.raises(
        ValueError, match=r"^dab-detr-r50: the checkpoint (lacks|holds unknown) backbone\.0\.body\.layer1"
    ):
        load_detector("dab-detr-r50", saved(tmp_path / "file.pth", tensors))


def test_extra_tensors_are_counted(detector: Detector, tmp_path: Path) -> None:
    extra = {f"extra.{index}": torch.zeros(1) for index in range(5)}
    tensors = detector.tensors()
    expected = (
        r"^dab-detr-r50: the checkpoint holds unknown extra\.0, extra\.1, extra\.2 and 2 more; "
        rf"expected {len(tensors)} tensors$"
    )
    with pytest.raises(ValueError, match=expected):
        load_detector("dab-detr-r50", saved(tmp_path / "file.pth", {**tensors, **extra}))


def test_a_tensor_of_the_wrong_shape_is_named(detector: Detector, tmp_path: Path) -> None:
    tensors = {**detector.tensors(), "class_embed.bias": torch.zeros(5)}
    expected = (
        r"^dab-detr-r50: the checkpoint has the wrong shape for class_embed\.bias; "
        rf"expected {len(tensors)} tensors$"
    )
    with pytest.raises(ValueError, match=expected):
        load_detector("dab-detr-r50", saved(tmp_path / "file.pth", tensors))


def test_a_description_builds_the_same_profile(detector: Detector) -> None:
    assert profile_from(describe(detector), "tiny") == detector.profile


def test_categories_without_a_name_survive(make_detector: Callable[..., Detector]) -> None:
    detector = make_detector()
    del detector.category_names[3]
    profile = profile_from(describe(detector), "tiny")
    assert profile.category_ids == (1, 2, 3, 4, 5, 6)
    assert profile.category_names == {i: name for i, name in enumerate(shapes.CATEGORIES, start=1) if i != 3}


def test_a_description_holds_every_setting() -> None:
    profile = Profile(
        "mine", "dab_detr", "softmax", (7, 9), {7: "cat"}, FORM, {"temperature": 10.0}, choice=Choice(limit=7)
    )
    detector = Detector(profile)  # type: ignore[abstract]
    assert profile_from(describe(detector), "tiny") == profile


@pytest.mark.parametrize("name", ["module:build", "package.module:build", "a.b.c:d"])
def test_names_of_functions_are_told_from_others(name: str) -> None:
    assert zoo.is_custom(name)


@pytest.mark.parametrize(
    "name", [*DETECTORS, "mine.safetensors", "folder/module.py:build", "module:", ":build", "module:a.b", "a..b:c", ""]
)
def test_other_names_are_no_functions(name: str) -> None:
    assert not zoo.is_custom(name)


def test_a_function_of_ones_own_builds_a_detector(custom: str) -> None:
    path = list(sys.path)
    detector = load_detector(custom)
    assert type(detector).__name__ == "Grid"
    assert (detector.profile.name, detector.profile.family) == ("grid", custom)
    assert (detector.strides, detector.channels) == ((8,), (16,))
    assert sys.path == path


def test_a_function_of_ones_own_is_given_the_weights(custom: str, tmp_path: Path) -> None:
    weights = {name: tensor + 1 for name, tensor in load_detector(custom).state_dict().items()}
    torch.save(weights, tmp_path / "weights.pth")
    found = load_detector(custom, tmp_path / "weights.pth").state_dict()
    assert all(torch.equal(found[name], tensor) for name, tensor in weights.items())


def test_a_search_path_that_has_the_folder_already_stays_in_order(
    custom: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As with python -m refinebox, which puts the current folder first."""
    monkeypatch.syspath_prepend(tmp_path / "own")
    path = list(sys.path)
    load_detector(custom)
    assert sys.path == path


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("own_detektor:build", "No module named 'own_detektor'"),
        ("own_detector:built", "module 'own_detector' has no attribute 'built'"),
    ],
)
def test_a_name_that_cannot_be_imported_says_why(name: str, reason: str, custom: str) -> None:
    expected = rf"^{name} cannot be imported \({reason}.*\); expected package\.module:function$"
    with pytest.raises(ValueError, match=expected):
        load_detector(name)


def test_a_function_must_return_a_detector(custom: str) -> None:
    expected = r"^own_detector:number returned a int, expected a refinebox\.Detector; see docs/adapters\.md$"
    with pytest.raises(ValueError, match=expected):
        load_detector("own_detector:number")
