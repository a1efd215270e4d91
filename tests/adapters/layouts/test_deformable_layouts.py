"""Each published layout of the deformable families, from the names of mmdetection's files and back."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import mmdet_files
import pytest
import torch
from mmdet_files import to_detrex, to_mmdet2, to_mmdet3, to_original
from refinebox.adapters.layouts import recognise as layouts
from torch import Tensor

from refinebox.data.categories import COCO_NAMES
from refinebox.data.input_format import pad
from refinebox.detection.zoo import load_detector

ONES = ["deformable_detr", "deformable_detr_refine", "dino_4scale"]  # which several codes publish
OTHERS = ["ddq_detr_4scale", "co_deformable_detr", "co_dino"]
LAYOUTS: dict[str, Callable[[Mapping[str, Tensor]], dict[str, Tensor]]] = {
    "authors": to_original,
    "detrex": to_detrex,
    "mmdet2": to_mmdet2,
    "mmdet3": to_mmdet3,
}


def authors(recorded: Any) -> dict[str, Tensor]:
    found, _ = layouts.to_authors(recorded.state)
    return found


def assert_same(found: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> None:
    assert sorted(found) == sorted(wanted)
    assert [key for key, tensor in wanted.items() if not torch.equal(found[key], tensor)] == []


@pytest.mark.parametrize("file", ONES + OTHERS)
def test_the_authors_names_stay_as_they_are(file: str, mmdet_recording: Any) -> None:
    state = authors(mmdet_recording(file))
    assert_same(layouts.to_authors(state)[0], state)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("file", ONES)
def test_every_layout_is_told_and_renamed_back(file: str, layout: str, mmdet_recording: Any) -> None:
    state = authors(mmdet_recording(file))
    if (file, layout) == ("dino_4scale", "mmdet2"):
        pytest.skip("version 2 has no DINO")
    theirs = LAYOUTS[layout](state)
    found, told = layouts.to_authors(theirs)
    assert told == layout
    biased = mmdet_files.with_biases(state)
    assert_same(found, state if layout.startswith("mmdet") else biased)


def test_renaming_to_version_3_gives_the_names_of_the_recording(mmdet_recording: Any) -> None:
    """Else the other layouts here, which are made from these names, would prove nothing."""
    for file in ONES:
        recorded = mmdet_recording(file)
        left = {key for key in recorded.state if "num_batches_tracked" not in key and "dn_query" not in key}
        assert set(to_mmdet3(authors(recorded))) == left


@pytest.mark.parametrize("wrap", ["", "module."])
@pytest.mark.parametrize("file", OTHERS)
def test_what_only_training_needs_is_left_out(file: str, wrap: str, mmdet_recording: Any) -> None:
    recorded = mmdet_recording(file)
    state, layout = layouts.to_authors({f"{wrap}{key}": tensor for key, tensor in recorded.state.items()})
    assert layout == ("mmdet3" if file.startswith("ddq") else "mmdet2")
    training = ("rpn", "roi", "aux", "dn_", "label", "query_head.", "bbox_head.", "atss", "feats", "head_pos")
    assert [key for key in state if any(word in key for word in training)] == []
    assert len([key for key in state if key.startswith("class_embed.")]) == 2 * (
        recorded.content["config"]["decoder_layers"] + 1
    )


@pytest.mark.parametrize("layout", ["authors", "detrex"])
def test_other_codes_have_other_constants(layout: str, mmdet_recording: Any, tmp_path: Path) -> None:
    torch.save({"model": LAYOUTS[layout](authors(mmdet_recording("dino_4scale")))}, tmp_path / "dino.pth")
    network = load_detector("dino-r50-4scale", tmp_path / "dino.pth").get_submodule("network")
    assert (network.epsilon, network.output_epsilon) == (1e-3, 1e-3)
    assert (network.temperature, network.offset) == ((20.0, 0.0) if layout == "authors" else (10000.0, -0.5))


def test_the_improved_dino_is_told_by_name(mmdet_recording: Any, tmp_path: Path) -> None:
    recorded = mmdet_recording("dino_4scale")
    path = mmdet_files.write(tmp_path / "dino.pth", recorded.state)
    network = load_detector("dino-r50-4scale-improved", path).get_submodule("network")
    assert (network.temperature, network.offset, network.output_epsilon) == (10000.0, -0.5, 1e-5)


@pytest.mark.parametrize("layout", ["authors", "detrex", "mmdet2"])
@pytest.mark.parametrize("file", ["deformable_detr", "deformable_detr_refine"])
def test_other_layouts_give_the_authors_numbers(file: str, layout: str, mmdet_recording: Any, tmp_path: Path) -> None:
    recorded = mmdet_recording(file)
    torch.save({"model": LAYOUTS[layout](authors(recorded))}, tmp_path / "weights.pth")
    detector = load_detector(recorded.name, tmp_path / "weights.pth")
    assert detector.profile.layout == layout
    output = detector(*pad(recorded.content["images"][:1]))
    if layout == "detrex":  # whose inverse sigmoid keeps another distance from 0 and 1
        detector.get_submodule("network").epsilon = detector.get_submodule("network").output_epsilon = 1e-5
        output = detector(*pad(recorded.content["images"][:1]))
    torch.testing.assert_close(output.logits, recorded.content["single"][0]["pred_logits"], atol=1e-3, rtol=0)
    torch.testing.assert_close(output.boxes, recorded.content["single"][0]["pred_boxes"], atol=5e-5, rtol=0)


def test_the_project_in_version_3_takes_fewer_pairs(mmdet_recording: Any, tmp_path: Path) -> None:
    recorded = mmdet_recording("co_dino")
    old, new = "query_head.label_embedding", "query_head.dn_generator.label_embedding"
    state = {key.replace(old, new): tensor for key, tensor in recorded.state.items()}
    project = load_detector("co-dino-r50", mmdet_files.write(tmp_path / "project.pth", state))
    theirs = load_detector("co-dino-r50", mmdet_files.write(tmp_path / "theirs.pth", recorded.state))
    assert (project.profile.layout, project.profile.final.limit) == ("mmdet3", 300)
    assert (theirs.profile.layout, theirs.profile.final.limit) == ("mmdet2", len(recorded.content["pred_boxes"][0]))
    assert project.weights_sha256() == theirs.weights_sha256()


def test_columns_are_cocos_without_metadata_too(mmdet_recording: Any, tmp_path: Path) -> None:
    torch.save({"state_dict": mmdet_recording("deformable_detr").state}, tmp_path / "weights.pth")
    assert load_detector("deformable-detr-r50", tmp_path / "weights.pth").category_ids == tuple(COCO_NAMES)


def test_the_names_of_other_data_are_the_files(mmdet_recording: Any, tmp_path: Path) -> None:
    names = [f"thing {index}" for index in range(80)]
    for key, meta in (("3.pth", {"dataset_meta": {"classes": names}}), ("2.pth", {"CLASSES": names})):
        torch.save({"state_dict": mmdet_recording("deformable_detr").state, "meta": meta}, tmp_path / key)
        detector = load_detector("deformable-detr-r50", tmp_path / key)
        assert detector.category_ids == tuple(range(80))
        assert detector.category_names == dict(enumerate(names))


@pytest.mark.parametrize(
    ("file", "name", "expected"),
    [
        (
            "deformable_detr",
            "deformable-detr-r50-refine",
            r"^deformable-detr-r50-refine is refine, but the checkpoint is plain; name a detector of that kind$",
        ),
        (
            "deformable_detr_refine",
            "deformable-detr-r50-two-stage",
            r"^deformable-detr-r50-two-stage is two-stage, but the checkpoint is refine; name a detector of that kind$",
        ),
        (
            "dino_4scale",
            "dino-r50-5scale",
            r"^dino-r50-5scale has 5 feature levels, but the checkpoint has 4; name a detector of as many$",
        ),
        (
            "co_deformable_detr",
            "co-dino-r50",
            r"^co-dino-r50 has 5 feature levels, but the checkpoint has 4; name a detector of as many$",
        ),
        (
            "dino_4scale",
            "ddq-detr-r50-4scale",
            r"weights\.pth is a dino checkpoint, but ddq-detr-r50-4scale is ddq; name a detector of that family$",
        ),
        (
            "co_dino",
            "detr-r50",
            r"weights\.pth is a co_detr checkpoint, but detr-r50 is detr; name a detector of that family$",
        ),
    ],
)
def test_another_variant_says_which_it_is(
    file: str, name: str, expected: str, mmdet_recording: Any, tmp_path: Path
) -> None:
    path = mmdet_files.write(tmp_path / "weights.pth", mmdet_recording(file).state)
    with pytest.raises(ValueError, match=expected):
        load_detector(name, path)
