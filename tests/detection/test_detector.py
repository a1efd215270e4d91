"""What holds for every frozen detector, whatever its network."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Literal

import pytest
import torch
from PIL import Image
from refinebox.adapters.dab_detr import DabDetr, build
from refinebox.adapters.parts.sizes import Sizes
from torch import Tensor

from refinebox.data.annotations import CocoData
from refinebox.data.categories import COCO_NAMES
from refinebox.data.images import read_image
from refinebox.data.input_format import InputFormat, Rounding, pad
from refinebox.detection.choice import Choice
from refinebox.detection.detector import Detector
from refinebox.detection.output import Detections, DetectorOutput
from refinebox.detection.profile import Profile
from refinebox.detection.published import DETECTORS
from refinebox.detection.zoo import load_detector


def test_a_detector_stays_in_evaluation_mode(detector: Detector) -> None:
    assert detector.train(True) is detector
    assert not any(module.training for module in detector.modules())
    detector.eval()
    assert not detector.training


def test_a_detector_has_nothing_to_train(detector: Detector) -> None:
    assert list(detector.parameters())
    assert not any(parameter.requires_grad for parameter in detector.parameters())


def test_the_output_carries_no_gradient(detector: Detector) -> None:
    images = torch.randn(1, 3, 64, 64, requires_grad=True)
    output = detector(images, torch.tensor([[64, 64]]))
    assert not any(tensor.requires_grad for tensor in (*output.features, output.boxes, output.logits))


def test_the_same_images_give_the_same_output(detector: Detector) -> None:
    torch.manual_seed(0)
    images, sizes = torch.randn(2, 3, 64, 80), torch.tensor([[64, 80], [50, 40]])
    first, second = detector(images, sizes), detector(images, sizes)
    assert torch.equal(first.boxes, second.boxes)
    assert torch.equal(first.logits, second.logits)
    assert all(torch.equal(a, b) for a, b in zip(first.features, second.features, strict=True))


def test_half_precision_moves_boxes_by_little_and_returns_float32(detector: Detector) -> None:
    torch.manual_seed(0)
    images, sizes = torch.randn(2, 3, 64, 96), torch.tensor([[64, 96], [64, 96]])
    whole = detector(images, sizes)
    detector.precision = "bfloat16"
    half = detector(images, sizes)
    found = [*detector.features(images, sizes), half.boxes, half.logits, *half.features]
    assert {tensor.dtype for tensor in found} == {torch.float32}
    assert not torch.equal(half.features[-1], whole.features[-1])
    for ours, exact in zip(half.features, whole.features, strict=True):
        assert (ours - exact).norm() < 0.02 * exact.norm()
    assert 0 < (half.boxes - whole.boxes).abs().max() < 0.01
    assert (half.boxes * 256 != (half.boxes * 256).round()).any()  # not just bfloat16 in disguise


def test_maps_are_measured(detector: Detector) -> None:
    output = detector(torch.zeros(1, 3, 64, 96), torch.tensor([[64, 96]]))
    assert tuple(feature.shape[1] for feature in output.features) == detector.channels == (16, 16, 24, 32)
    assert tuple(64 // feature.shape[2] for feature in output.features) == detector.strides == (4, 8, 16, 16)
    assert tuple(96 // feature.shape[3] for feature in output.features) == detector.strides


class Headless(Detector):
    """Has no network; what it does with scores and boxes can be seen all the same."""

    def detect(self, images: Tensor, sizes: Tensor) -> DetectorOutput:
        return super().detect(images, sizes)  # type: ignore[safe-super]


def test_a_detector_without_a_network_cannot_detect() -> None:
    with pytest.raises(NotImplementedError):
        Headless(Profile("none", "none"))(torch.zeros(1, 3, 8, 8), torch.tensor([[8, 8]]))


def test_a_padded_image_gives_the_boxes_it_gives_alone(detector: Detector) -> None:
    torch.manual_seed(0)
    small, large = torch.randn(3, 64, 80), torch.randn(3, 128, 160)
    alone, together = detector(*pad([small])), detector(*pad([small, large]))
    torch.testing.assert_close(together.boxes[:1], alone.boxes, atol=1e-4, rtol=0)
    unmasked = detector(pad([small, large])[0], torch.tensor([[128, 160], [128, 160]]))
    assert (unmasked.boxes[0] - alone.boxes[0]).abs().max() > 3e-4


def test_more_padding_changes_nothing() -> None:
    bundled = DETECTORS["dab-detr-shapes"].bundled
    if bundled is None or not bundled.is_file():
        pytest.skip(f"the bundled weights are not at {bundled}")
    detector = load_detector("dab-detr-shapes")
    torch.manual_seed(0)
    small = torch.randn(3, 64, 80)
    padded = [detector(*pad([small, torch.zeros(3, 64 + extra, 80 + extra)])) for extra in (192, 256)]
    torch.testing.assert_close(padded[0].boxes[0], padded[1].boxes[0], atol=1e-4, rtol=0)
    torch.testing.assert_close(padded[0].logits[0], padded[1].logits[0], atol=1e-3, rtol=0)


def plain(classification: Literal["sigmoid", "softmax"], ids: tuple[int, ...] = (10, 20)) -> Detector:
    return Headless(Profile("plain", "none", classification, ids))


BOXES = torch.tensor([[[0.5, 0.5, 0.2, 0.4], [0.25, 0.5, 0.5, 1.0], [0.5, 0.5, 2.0, 1.0]]])
SIZES = torch.tensor([[100, 200]])  # height, width
PIXELS = torch.tensor([[80.0, 30.0, 120.0, 70.0], [0.0, 0.0, 100.0, 100.0], [-100.0, 0.0, 300.0, 100.0]])


def assert_found(found: Detections, boxes: Tensor, scores: list[float], labels: list[int]) -> None:
    torch.testing.assert_close(found.boxes, boxes)
    torch.testing.assert_close(found.scores, torch.tensor(scores))
    assert found.labels.tolist() == labels


def test_sigmoid_detectors_return_the_best_pairs() -> None:
    scores = torch.tensor([[[0.1, 0.9], [0.8, 0.2], [0.3, 0.7]]])
    (found,) = plain("sigmoid").postprocess(scores, BOXES, SIZES)
    order = [0, 1, 2, 2, 1, 0]
    assert_found(found, PIXELS[order], [0.9, 0.8, 0.7, 0.3, 0.2, 0.1], [20, 10, 20, 10, 20, 10])


def test_sigmoid_detectors_return_300_pairs_at_most() -> None:
    torch.manual_seed(0)
    scores, boxes = torch.rand(2, 200, 2), torch.rand(2, 200, 4)
    found = plain("sigmoid").postprocess(scores, boxes, torch.tensor([[100, 200], [50, 50]]))
    for row, detections in zip(scores, found, strict=True):
        assert detections.boxes.shape == (300, 4)
        assert torch.equal(detections.scores, row.flatten().sort(descending=True).values[:300])


def test_softmax_detectors_return_every_query() -> None:
    scores = torch.tensor([[[0.1, 0.6], [0.05, 0.04], [0.9, 0.1]]])
    (found,) = plain("softmax").postprocess(scores, BOXES, SIZES)
    assert_found(found, PIXELS, [0.6, 0.05, 0.9], [20, 10, 10])


def test_images_of_a_batch_have_their_own_sizes() -> None:
    scores = torch.tensor([[[0.9]], [[0.4]]])
    found = plain("sigmoid", (3,)).postprocess(
        scores, BOXES[:, :1].expand(2, -1, -1), torch.tensor([[100, 200], [10, 10]])
    )
    assert_found(found[0], PIXELS[:1], [0.9], [3])
    assert_found(found[1], torch.tensor([[4.0, 3.0, 6.0, 7.0]]), [0.4], [3])


def test_sigmoid_scores_every_category() -> None:
    logits = torch.tensor([[[0.0, 2.0]]])
    torch.testing.assert_close(plain("sigmoid").scores(logits), torch.tensor([[[0.5, 0.880797]]]))


def test_softmax_scores_leave_out_no_object() -> None:
    logits = torch.tensor([[[1.0, 1.0, 3.0]]]).log()
    torch.testing.assert_close(plain("softmax").scores(logits), torch.tensor([[[0.2, 0.2]]]))


def test_a_path_and_an_image_give_the_same_detections(detector: Detector, validation: CocoData) -> None:
    path = validation.folder / validation.images[0]["file_name"]
    from_path, from_text, from_image = detector.predict([path, str(path), read_image(path)])
    for other in (from_text, from_image):
        assert torch.equal(from_path.boxes, other.boxes)
        assert torch.equal(from_path.scores, other.scores)
        assert torch.equal(from_path.labels, other.labels)
    assert set(from_path.labels.tolist()) == {1, 2, 3, 4, 5, 6}


def test_an_image_with_transparency_is_read(detector: Detector) -> None:
    (found,) = detector.predict([Image.new("RGBA", (50, 40), (1, 2, 3, 4))])
    (wanted,) = detector.predict([Image.new("RGBA", (50, 40), (1, 2, 3, 4)).convert("RGB")])
    assert torch.equal(found.boxes, wanted.boxes)


def test_detections_do_not_depend_on_the_other_images(detector: Detector, validation: CocoData) -> None:
    paths = [validation.folder / entry["file_name"] for entry in validation.images]
    together = detector.predict(paths)
    for path, found in zip(paths, together, strict=True):
        assert torch.equal(found.boxes, detector.predict([path])[0].boxes)


def test_an_unreadable_image_is_named(detector: Detector, tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_text("no image")
    with pytest.raises(ValueError, match=r"broken\.png is not a readable image"):
        detector.predict([tmp_path / "broken.png"])


def test_a_resized_detector_takes_other_inputs(detector: Detector, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[int, ...]] = []
    detect = detector.detect

    def recorded(images: Tensor, sizes: Tensor) -> DetectorOutput:
        seen.append(tuple(images.shape[-2:]))
        return detect(images, sizes)

    monkeypatch.setattr(detector, "detect", recorded)
    image = Image.new("RGB", (160, 100))
    for short_side, long_side in ((None, None), (96, None), (None, 128)):
        detector.resize(short_side, long_side)
        detector.predict([image])
    assert seen == [(64, 102), (80, 128), (80, 128)]
    assert (detector.profile.input.short_side, detector.profile.input.long_side) == (96, 128)
    assert detector.profile.name == "tiny"


def sizes_of(detector: Detector, columns: int) -> Sizes:
    return replace(Sizes.read(detector.tensors()), columns=columns)


@pytest.mark.parametrize(("ids", "columns"), [(5, 6), (7, 6)])
def test_ids_and_score_columns_must_pair(ids: int, columns: int, detector: Detector) -> None:
    profile = replace(detector.profile, category_ids=tuple(range(ids)))
    expected = rf"^tiny: {ids} category ids for {columns} score columns; the checkpoint's metadata is wrong$"
    with pytest.raises(ValueError, match=expected):
        build(DabDetr(sizes_of(detector, columns)).state_dict(), profile)


@pytest.mark.parametrize(("classes", "names"), [(91, COCO_NAMES), (6, {})])
def test_columns_without_ids_are_ids(classes: int, names: dict[int, str], detector: Detector) -> None:
    profile = Profile("plain", "dab_detr")
    built = build(DabDetr(sizes_of(detector, classes)).state_dict(), profile)
    assert built.category_ids == tuple(range(classes))
    assert built.category_names == names


def test_names_that_are_given_are_kept(detector: Detector) -> None:
    profile = Profile("plain", "dab_detr", category_names={1: "cat"})
    assert build(DabDetr(sizes_of(detector, 91)).state_dict(), profile).category_names == {1: "cat"}


def test_80_columns_of_detrex_are_cocos_categories(detector: Detector) -> None:
    profile = Profile("plain", "dab_detr", layout="detrex")
    built = build(DabDetr(sizes_of(detector, 80)).state_dict(), profile)
    assert built.category_ids == tuple(COCO_NAMES)
    assert built.category_names == COCO_NAMES
    for layout, names in (("authors", {}), ("transformers", {}), ("detrex", {0: "cat"})):
        other = replace(profile, layout=layout, category_names=names)
        built = build(DabDetr(sizes_of(detector, 80)).state_dict(), other)
        assert built.category_ids == tuple(range(80))
        assert built.category_names == names


def test_names_are_taken_over_by_a_detector_that_has_none() -> None:
    categories = [{"id": 7, "name": "cat"}, {"id": 9, "name": "dog"}]
    nameless = plain("sigmoid")
    nameless.name_categories([])
    assert (nameless.category_ids, nameless.category_names) == ((10, 20), {})
    nameless.name_categories(categories)
    assert (nameless.category_ids, nameless.category_names) == ((7, 9), {7: "cat", 9: "dog"})
    nameless.name_categories([{"id": 1, "name": "cow"}, {"id": 2, "name": "pig"}])
    assert nameless.category_ids == (7, 9)


def detrexs() -> Detector:
    return Headless(Profile("plain", "none", category_ids=(10, 20), layout="detrex"))


def test_detrex_clips_and_drops_what_lies_outside() -> None:
    """As detectron2 does; worked out by hand for an image of 100 x 200 pixels."""
    boxes = torch.tensor(
        [
            [0.5, 0.5, 0.2, 0.4],  # inside
            [0.0, 0.5, 0.5, 1.0],  # half of it left of the image
            [0.5, 0.5, 2.0, 3.0],  # around the image
            [1.5, 0.5, 0.5, 0.5],  # right of the image
            [0.5, 0.5, 0.0, 0.5],  # without a width
        ]
    )
    scores = torch.tensor([[[0.9, 0.0], [0.8, 0.0], [0.7, 0.0], [0.6, 0.0], [0.5, 0.0]]])
    (found,) = detrexs().postprocess(scores, boxes[None], SIZES)
    kept = found.scores > 0
    expected = torch.tensor([[80.0, 30.0, 120.0, 70.0], [0.0, 0.0, 50.0, 100.0], [0.0, 0.0, 200.0, 100.0]])
    assert_found(
        Detections(found.boxes[kept], found.scores[kept], found.labels[kept]), expected, [0.9, 0.8, 0.7], [10, 10, 10]
    )
    (as_it_is,) = plain("sigmoid").postprocess(scores, boxes[None], SIZES)
    assert len(as_it_is.scores) == 10
    assert as_it_is.boxes.max() > 200


def test_detections_are_selected_before_they_are_dropped() -> None:
    """Others do not move up for those that are dropped, and before and after refinement keep the same rows."""
    detector = detrexs()
    detector.profile = replace(detector.profile, choice=Choice(limit=2))
    boxes = torch.tensor([[[1.5, 0.5, 0.1, 0.1], [0.5, 0.5, 0.1, 0.1], [0.4, 0.5, 0.1, 0.1]]])
    scores = torch.tensor([[[0.9, 0.1], [0.8, 0.1], [0.7, 0.1]]])
    (found,) = detector.postprocess(scores, boxes, SIZES)
    assert found.scores.tolist() == pytest.approx([0.8])
    (selected,) = detector.select(scores, boxes, SIZES)
    assert selected.scores.tolist() == pytest.approx([0.9, 0.8])


@pytest.mark.parametrize(("layout", "width"), [("authors", 106), ("detrex", 107), ("transformers", 106)])
def test_images_are_resized_as_the_layout_says(layout: Rounding, width: int) -> None:
    detector = Headless(Profile("plain", "none", input=InputFormat(short_side=80, long_side=133, rounding=layout)))
    assert detector.preprocess(Image.new("RGB", (64, 48))).shape == (3, 80, width)


def test_the_hash_of_the_weights_tells_detectors_apart(make_detector: Callable[..., Detector]) -> None:
    assert make_detector(seed=0).weights_sha256() == make_detector(seed=0).weights_sha256()
    assert make_detector(seed=0).weights_sha256() != make_detector(seed=1).weights_sha256()
