"""Each published layout against the names and numbers of the authors."""

import re
from collections.abc import Callable, Mapping
from itertools import permutations
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from published_names import BACKBONES, COCO80, UNKNOWN, to_detrex, to_transformers, with_80_classes
from refinebox.adapters.layouts import recognise as layouts
from torch import Tensor

from refinebox.data.categories import COCO_NAMES
from refinebox.data.input_format import pad
from refinebox.detection.published import DETECTORS
from refinebox.detection.zoo import load_detector

FAMILIES = ["detr", "conditional_detr", "dab_detr", "dn_detr"]


def plain(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Without the aliases and counters that the authors' files hold."""
    return {
        key: tensor
        for key, tensor in state.items()
        if "decoder.bbox_embed" not in key and "num_batches_tracked" not in key
    }


def assert_same(found: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> None:
    assert sorted(found) == sorted(wanted)
    assert [key for key, tensor in wanted.items() if not torch.equal(found[key], tensor)] == []


@pytest.fixture(scope="module", params=FAMILIES)
def recorded(request: pytest.FixtureRequest, recording: Callable[[str], Any]) -> Any:
    return recording(request.param)


def test_the_authors_layout_stays_as_it_is(recorded: Any) -> None:
    found, layout = layouts.to_authors(recorded.state)
    assert layout == "authors"
    assert_same(found, plain(recorded.state))


@pytest.mark.parametrize("dilated", [False, True], ids=["detectron2", "torchvision"])
def test_detrex_names_are_renamed_back(dilated: bool, recorded: Any) -> None:
    theirs = to_detrex(plain(recorded.state), dilated=dilated)
    assert not [key for key in theirs if re.search(r"backbone\.0|linear|norm1|self_attn|refpoint|label_enc\.", key)]
    found, layout = layouts.to_authors(theirs)
    assert layout == "detrex"
    assert_same(found, plain(recorded.state))


@pytest.mark.parametrize("backbone", BACKBONES)
@pytest.mark.parametrize("family", ["detr", "conditional_detr", "dab_detr"])
def test_transformers_names_are_renamed_back(family: str, backbone: str, recording: Any) -> None:
    state = plain(recording(family).state)
    theirs = to_transformers(state, backbone)
    assert not [key for key in theirs if re.search(r"in_proj|linear|norm1|transformer\.|bbox_embed", key)]
    found, layout = layouts.to_authors(theirs)
    assert layout == "transformers"
    assert_same(found, state)


def in_layout(state: Mapping[str, Tensor], layout: str) -> dict[str, Tensor]:
    return {"authors": dict, "detrex": to_detrex, "transformers": to_transformers}[layout](state)  # type: ignore[operator, no-any-return]


@pytest.mark.parametrize("layout", ["authors", "detrex", "transformers"])
@pytest.mark.parametrize("suffix", [".pth", ".safetensors", ".ckpt"])
def test_the_layout_is_told_from_the_keys(layout: str, suffix: str, recording: Any, tmp_path: Path) -> None:
    """The names of the files say the opposite of what is in them."""
    path = tmp_path / f"{'detrex' if layout == 'authors' else 'authors_original'}{suffix}"
    state = {key: tensor.contiguous() for key, tensor in in_layout(plain(recording("detr").state), layout).items()}
    if suffix == ".pth":
        safetensors.torch.save_file(state, path)
    else:
        torch.save({"model": state}, path)
    detector = load_detector("detr-r50", path)
    assert detector.profile.layout == layout
    assert_same(detector.tensors(), plain(recording("detr").state))


@pytest.mark.parametrize("dilated", [False, True], ids=["detectron2", "torchvision"])
def test_detrex_files_give_the_authors_numbers(dilated: bool, recorded: Any, tmp_path: Path) -> None:
    state = to_detrex(with_80_classes(recorded.state), dilated=dilated)
    torch.save({"model": state, "iteration": 5}, tmp_path / "detrex.pth")
    detector = load_detector(recorded.name, tmp_path / "detrex.pth")
    assert detector.category_ids == tuple(COCO80)
    assert detector.category_names == COCO_NAMES
    columns = COCO80 if recorded.name != "detr-r50" else [*COCO80, UNKNOWN]
    for image, wanted in zip(recorded.content["images"], recorded.content["single"], strict=True):
        output = detector(*pad([image]))
        torch.testing.assert_close(output.logits, wanted["pred_logits"][..., columns], atol=5e-4, rtol=0)
        torch.testing.assert_close(output.boxes, wanted["pred_boxes"], atol=3e-5, rtol=0)


def test_detrex_files_give_the_authors_labels(recorded: Any, tmp_path: Path) -> None:
    torch.save({"model": to_detrex(with_80_classes(recorded.state))}, tmp_path / "detrex.pth")
    detector = load_detector(recorded.name, tmp_path / "detrex.pth")
    scores = torch.zeros(1, 100, 80)
    scores[0, 7, 79] = scores[0, 8, 0] = 0.9
    (found,) = detector.postprocess(scores, torch.full((1, 100, 4), 0.5), torch.tensor([[480, 640]]))
    assert set(found.labels[found.scores > 0.5].tolist()) == {1, 90}


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: {f"module.{key}": tensor for key, tensor in state.items()},
        lambda state: {f"detr.{key}": tensor for key, tensor in state.items()},
        lambda state: {f"module.detr.{key}": tensor for key, tensor in state.items()},
        lambda state: (
            {f"detr.{key}": tensor for key, tensor in state.items()}
            | {"mask_head.lay1.weight": torch.zeros(8, 8, 3, 3), "bbox_attention.q_linear.weight": torch.zeros(8, 8)}
        ),
    ],
    ids=["distributed", "inside", "both", "panoptic"],
)
def test_wrappers_and_mask_heads_are_taken_off(wrap: Callable[[Any], Any], recorded: Any) -> None:
    assert_same(layouts.to_authors(wrap(recorded.state))[0], plain(recorded.state))


@pytest.mark.parametrize("layout", ["detrex", "transformers"])
def test_other_layouts_are_unwrapped_too(layout: str, recording: Any) -> None:
    state = plain(recording("conditional_detr").state)
    wrapped = {f"module.{key}": tensor for key, tensor in in_layout(state, layout).items()}
    assert_same(layouts.to_authors(wrapped)[0], state)


def test_panoptic_models_of_transformers_lose_their_mask_heads(recording: Any) -> None:
    state = plain(recording("detr").state)
    wrapped = {f"detr.{key}": tensor for key, tensor in to_transformers(state, "timm").items()}
    wrapped |= {"mask_head.lay1.weight": torch.zeros(8), "bbox_attention.q_linear.weight": torch.zeros(8, 8)}
    found, layout = layouts.to_authors(wrapped)
    assert layout == "transformers"
    assert_same(found, state)


@pytest.mark.parametrize("layout", ["authors", "detrex"])
def test_the_box_head_may_stand_there_twice_or_under_its_other_name(layout: str, recording: Any) -> None:
    state = plain(recording("dab_detr").state)
    theirs = in_layout(state, layout)
    alias = {f"transformer.decoder.{key}": tensor for key, tensor in theirs.items() if key.startswith("bbox_embed.")}
    assert len(alias) == 6
    assert_same(layouts.to_authors(theirs | alias)[0], state)
    only = {key: tensor for key, tensor in theirs.items() if not key.startswith("bbox_embed.")}
    assert_same(layouts.to_authors(only | alias)[0], state)


def test_transformers_files_may_hold_the_box_head_twice(recording: Any) -> None:
    state = plain(recording("dab_detr").state)
    theirs = to_transformers(state)
    alias = {
        key.replace("bbox_predictor.", "model.decoder.bbox_embed."): tensor
        for key, tensor in theirs.items()
        if key.startswith("bbox_predictor.")
    }
    assert len(alias) == 6
    assert_same(layouts.to_authors(theirs | alias)[0], state)


@pytest.mark.parametrize("kept", ["both", "layers.0.1", "activation"])
def test_detrex_names_the_activation_once_or_twice(kept: str, recording: Any) -> None:
    state = plain(recording("dab_detr").state)
    theirs = to_detrex(state)
    first = {key: tensor for key, tensor in theirs.items() if key.endswith("ffns.0.layers.0.1.weight")}
    second = {key.replace("layers.0.1.weight", "activation.weight"): tensor for key, tensor in first.items()}
    assert len(second) == 5
    without = {key: tensor for key, tensor in theirs.items() if key not in first}
    found = {"both": theirs | second, "layers.0.1": theirs, "activation": without | second}[kept]
    assert_same(layouts.to_authors(found)[0], state)


def test_what_holds_no_weight_is_left_out(recording: Any) -> None:
    state = plain(recording("detr").state)
    more = {"criterion.empty_weight": torch.ones(81), "backbone.stem.conv1.norm.num_batches_tracked": torch.tensor(3)}
    assert_same(layouts.to_authors(to_detrex(state) | more)[0], state)


def test_an_unknown_layout_counts_as_the_authors() -> None:
    found, layout = layouts.to_authors({"weight": torch.zeros(2)})
    assert (list(found), layout) == (["weight"], "authors")


@pytest.mark.parametrize(
    ("layout", "file", "named"),
    [
        (layout, file, named)
        for layout in ("authors", "detrex", "transformers")
        for file, named in permutations(FAMILIES, 2)
        if (layout, file) != ("transformers", "dn_detr")  # which transformers does not have
    ],
)
def test_the_wrong_family_says_which_it_is(layout: str, file: str, named: str, recording: Any, tmp_path: Path) -> None:
    path, name = tmp_path / "checkpoint.pth", recording(named).name
    torch.save(in_layout(plain(recording(file).state), layout), path)
    expected = rf"^{path} is a {file} checkpoint, but {name} is {named}; name a detector of that family$"
    with pytest.raises(ValueError, match=expected):
        load_detector(name, path)


@pytest.mark.parametrize("letter", ["q", "k", "v"])
def test_a_missing_projection_of_transformers_is_named(letter: str, recording: Any, tmp_path: Path) -> None:
    state = to_transformers(plain(recording("detr").state))
    del state[f"model.decoder.layers.1.self_attn.{letter}_proj.weight"]
    torch.save(state, tmp_path / "incomplete.pth")
    with pytest.raises(ValueError, match=r"decoder\.layers\.1\.self_attn\.(in|q|k|v)_proj"):
        load_detector("detr-r50", tmp_path / "incomplete.pth")


def test_the_table_says_layouts_that_exist() -> None:
    assert {entry.layout for entry in DETECTORS.values()} == set(layouts.TABLES)
