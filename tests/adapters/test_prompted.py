"""Detectors that are told in words what to look for: the bare model's numbers, and its processor's detections."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from adapter_contract import AdapterContract
from PIL import Image
from torch.utils._pytree import tree_leaves

from refinebox.detection.detector import Detector
from refinebox.detection.zoo import load_detector
from refinebox.refinement.export import export

transformers = pytest.importorskip("transformers", reason="an extra: pip install 'refinebox[transformers]'")
from prompted_models import FAMILIES, build  # noqa: E402
from refinebox.adapters.parts import prompted  # noqa: E402

transformers.utils.logging.disable_progress_bar()
PHRASES = ["cat", "traffic light", "a dog"]
PICTURE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (90, 130, 3), dtype=np.uint8))


@pytest.fixture(scope="module", params=FAMILIES)
def family(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def folder(family: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("saved")
    for part in build(family):
        part.save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def detector(folder: Path) -> Detector:
    return load_detector(str(folder), prompt=PHRASES)


@pytest.fixture(scope="module")
def bare(folder: Path) -> tuple[Any, Any]:
    """The model as transformers opens it, and what it and its processor make of the picture and the phrases."""
    model = transformers.AutoModelForZeroShotObjectDetection.from_pretrained(folder).eval()
    processor = transformers.AutoProcessor.from_pretrained(folder)
    inputs = processor(images=PICTURE, text=[PHRASES], return_tensors="pt")
    with torch.no_grad():
        return processor, model(**inputs)


class TestPrompted(AdapterContract):
    def test_the_phrases_are_the_categories(self, detector: Detector) -> None:
        assert detector.takes_text
        assert list(detector.category_names.items()) == list(enumerate(PHRASES))


def test_numbers_equal_the_bare_models(detector: Detector, family: str, bare: tuple[Any, Any]) -> None:
    processor, wanted = bare
    images = detector.preprocess(PICTURE)[None]
    pixels = processor(images=PICTURE, text=[PHRASES], return_tensors="pt")["pixel_values"]
    torch.testing.assert_close(images, pixels, atol=1e-5, rtol=1e-5)
    with torch.no_grad():
        found = detector(pixels, torch.tensor([pixels.shape[-2:]]))
    if family == "omdet-turbo":
        logits, boxes = wanted.decoder_class_logits, wanted.decoder_coord_logits
    else:  # [CLS] cat . traffic light . a dog . [SEP]
        tokens = wanted.logits[0, :, 1:9]
        best = [tokens[:, 0], tokens[:, 2:4].amax(1), tokens[:, 5:7].amax(1)]
        logits, boxes = torch.stack(best, 1)[None], wanted.pred_boxes
    assert torch.equal(found.logits, logits)
    assert torch.equal(found.boxes, boxes)
    assert found.logits.std() > 0.01


def test_detections_equal_the_processors(detector: Detector, family: str, bare: tuple[Any, Any]) -> None:
    processor, output = bare
    sizes = {"target_sizes": [(PICTURE.height, PICTURE.width)], "threshold": 0.0}
    (found,) = detector.predict([PICTURE])
    [found] = [detector.finish(found, (PICTURE.height, PICTURE.width))]
    if family == "omdet-turbo":
        (wanted,) = processor.post_process_grounded_object_detection(output, text_labels=[PHRASES], **sizes)
        names = wanted["text_labels"]
        assert 1 < len(found.scores) == len(names) <= 20
    else:
        (wanted,) = processor.post_process_grounded_object_detection(output, text_threshold=0.0, **sizes)
        best = output.logits[0].argmax(1)
        between = torch.isin(best, torch.tensor([0, 2, 5, 8, 9]))  # the best token belongs to no phrase
        wanted = {
            key: [x for x, out in zip(wanted[key], between, strict=True) if not out] for key in ("scores", "boxes")
        }
        phrase = {1: "cat", 3: "traffic light", 4: "traffic light", 6: "a dog", 7: "a dog"}
        names = [phrase[token] for token, out in zip(best.tolist(), between, strict=True) if not out]
        assert len(names) > 5
    labels = [detector.category_names[label] for label in found.labels.tolist()]
    for box, score, name in zip(wanted["boxes"], wanted["scores"], names, strict=True):
        near = ((found.boxes - box).abs().amax(1) < 0.01) & ((found.scores - score).abs() < 1e-5)
        assert name in [label for label, same in zip(labels, near, strict=True) if same]


def test_the_image_is_read_once_and_the_words_never_again(detector: Detector, family: str) -> None:
    network: Any = detector.network
    bare = network.network
    text = bare.language_backbone.model if family == "omdet-turbo" else bare.model.text_backbone.encoder
    image = detector._taps._places[0][0]  # type: ignore[attr-defined]
    images, sizes = detector.profile.input.pad([detector.preprocess(PICTURE)])
    detector(images, sizes)
    calls: list[str] = []
    handles = [
        module.register_forward_hook(lambda *_, what=what: calls.append(what))
        for what, module in (("words", text), ("image", image))
    ]
    detector(images, sizes)
    detector.features(images, sizes)
    for handle in handles:
        handle.remove()
    assert calls == ["image", "image"]


def test_a_batch_equals_its_images(detector: Detector) -> None:
    images, sizes = detector.profile.input.pad([detector.preprocess(PICTURE)] * 2)
    one, two = detector(images[:1], sizes[:1]), detector(images, sizes)
    torch.testing.assert_close(two.logits, one.logits.expand_as(two.logits), atol=1e-4, rtol=1e-4)


def test_what_is_known_of_the_words_follows_the_detector_to_another_device(folder: Path, family: str) -> None:
    moved = load_detector(str(folder), prompt=PHRASES)
    moved.predict([PICTURE])
    moved.to("meta")
    network: Any = moved.network
    assert {network.get_buffer(name).device.type for name in network.inputs} == {"meta"}
    if family == "omdet-turbo":
        caches = network.network.language_cache_class, network.network.language_cache_prompt
        known = [tensor for cache in caches for tensor in tree_leaves(list(cache.cache.values()))]
        assert len(known) >= len(PHRASES) + 2
        assert {tensor.device.type for tensor in known} == {"meta"}


def test_other_words_change_what_is_found(folder: Path) -> None:
    detector = load_detector(str(folder), prompt="cat. dog.")
    images, sizes = detector.profile.input.pad([detector.preprocess(PICTURE)])
    first = detector(images, sizes)
    detector.ask(["dog", "light", "b"], [7, 3, 9])
    assert detector.category_names == {7: "dog", 3: "light", 9: "b"}
    second = detector(images, sizes)
    again = load_detector(str(folder), prompt="dog, light, b")(images, sizes)
    assert second.logits.shape[-1] == 3
    assert not torch.equal(first.logits[..., 1], second.logits[..., 0])
    assert torch.equal(second.logits, again.logits)


def test_without_a_prompt_it_gives_features_and_says_what_it_needs(folder: Path, detector: Detector) -> None:
    untold = load_detector(str(folder))
    images, sizes = detector.profile.input.pad([detector.preprocess(PICTURE)])
    assert all(map(torch.equal, untold.features(images, sizes), detector.features(images, sizes)))
    with pytest.raises(ValueError, match=r"is told in words what to look for; pass --prompt 'cat\. dog\.'$"):
        untold.predict([PICTURE])


def test_a_point_parts_phrases(folder: Path, family: str) -> None:
    if family == "omdet-turbo":
        return  # it reads every phrase alone
    with pytest.raises(ValueError, match=r"^the phrase 'st\. bernard' of the prompt holds a point"):
        load_detector(str(folder), prompt=["cat", "st. bernard"])
    with pytest.raises(ValueError, match=r"^the prompt of 9 phrases has 38 tokens, and this detector reads 32"):
        load_detector(str(folder), prompt=[f"{word} a b" for word in ("cat", "dog", "cats", *"abcdef")])
    with pytest.raises(ValueError, match=r"^the tokenizer finds 1 phrases in the prompt's 2"):
        load_detector(str(folder), prompt=["cat", "\u0301"])


@pytest.mark.parametrize(
    ("lacking", "message"),
    [
        (("token", "vocab", "merges"), "it has no tokenizer; put tokenizer.json or vocab.txt or vocab.json into its"),
        (("processor",), ".*processor"),
    ],
    ids=["tokenizer", "processor"],
)
def test_a_folder_without_all_its_files_is_named(
    lacking: tuple[str, ...], message: str, folder: Path, tmp_path: Path
) -> None:
    for path in folder.iterdir():
        if not any(word in path.name for word in lacking):
            (tmp_path / path.name).write_bytes(path.read_bytes())
    expected = rf"^{tmp_path.name} cannot be opened as a detector of transformers: {message}"
    with pytest.raises(ValueError, match=expected):
        load_detector(str(tmp_path))


def test_what_takes_other_things_than_phrases_is_refused(tmp_path: Path) -> None:
    transformers.OwlViTConfig().save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"a owlvit is no object detector .* nor one of grounding-dino, mm-grounding"):
        load_detector(str(tmp_path))


def test_it_is_not_exported(detector: Detector, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="cannot be exported: it is told in words what to look for"):
        export(detector, tmp_path / "model.onnx")


def test_a_text_parts_at_special_tokens() -> None:
    assert prompted.places_of([101, 7, 1012, 8, 9, 1012, 1012, 5, 102]) == [[1], [3, 4], [7]]
