"""Every object detector of transformers: the bare model's numbers to the last bit, and its processor's images."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from adapter_contract import AdapterContract
from PIL import Image

from refinebox.detection.detector import Detector
from refinebox.detection.zoo import load_detector

transformers = pytest.importorskip("transformers", reason="an extra: pip install 'refinebox[transformers]'")
from transformers_models import FAMILIES, SIDES, build  # noqa: E402

from refinebox.adapters import transformers as adapter  # noqa: E402

transformers.utils.logging.disable_progress_bar()
STRIDES = {"yolos": (16,), "lw_detr": (16,), "rf_detr": (14,)}
SHORTEST = ("detr", "conditional_detr", "dab-detr", "table-transformer", "deformable_detr", "yolos")
PICTURE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (90, 130, 3), dtype=np.uint8))


def processor(family: str) -> Any:
    """Small images of the kind that the family takes."""
    if family.split(",")[0] in SHORTEST:
        name = "Yolos" if family == "yolos" else "DeformableDetr"
        return getattr(transformers, f"{name}ImageProcessor")(size={"shortest_edge": 96, "longest_edge": 144})
    side = SIDES.get(family, 128)
    kind = transformers.PPDocLayoutV2ImageProcessor if "pp" in family else transformers.RTDetrImageProcessor
    return kind(size={"height": side, "width": side})


@pytest.fixture(scope="module", params=FAMILIES)
def family(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def folder(family: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("saved")
    build(family).save_pretrained(path)
    processor(family).save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def detector(folder: Path) -> Detector:
    return adapter.load(folder, "any")


class TestTransformers(AdapterContract):
    def test_the_strides(self, detector: Detector, family: str) -> None:  # type: ignore[override]
        assert detector.strides == STRIDES.get(family, (4, 8, 16, 32))

    def test_numbers_equal_the_bare_models(self, detector: Detector, family: str, folder: Path) -> None:
        model = transformers.AutoModelForObjectDetection.from_pretrained(folder).eval()
        pixels = processor(family)(images=PICTURE, return_tensors="pt")["pixel_values"]
        images = detector.preprocess(PICTURE)[None]
        torch.testing.assert_close(images, pixels, atol=1e-5, rtol=1e-5)
        with torch.no_grad():
            wanted = model(pixel_values=images)
        found = detector(images, torch.tensor([images.shape[-2:]]))
        assert torch.equal(found.logits, wanted.logits)
        assert torch.equal(found.boxes, adapter.enclosing(wanted.pred_boxes))

    def test_detections_equal_the_processors(self, detector: Detector, family: str, folder: Path) -> None:
        model = transformers.AutoModelForObjectDetection.from_pretrained(folder).eval()
        images = detector.preprocess(PICTURE)[None]
        with torch.no_grad():
            output = model(pixel_values=images)
        kind = transformers.PPDocLayoutV4ImageProcessor if family == "pp_doclayout_v4" else type(processor(family))
        if family in ("detr", "table-transformer"):
            kind = transformers.DetrImageProcessor
        size = (PICTURE.height, PICTURE.width)
        (wanted,) = kind().post_process_object_detection(output, threshold=0.0, target_sizes=[size])
        (found,) = detector.predict([PICTURE])
        order = wanted["scores"].argsort(descending=True, stable=True)
        torch.testing.assert_close(found.scores.sort(descending=True).values, wanted["scores"][order])
        for box, label, score in zip(wanted["boxes"], wanted["labels"], wanted["scores"], strict=True):
            same = ((found.boxes - box).abs().amax(1) < 0.01) & (found.labels == label)
            assert (same & ((found.scores - score).abs() < 1e-5)).any()

    def test_the_backbone_runs_once(self, detector: Detector) -> None:
        calls = []
        place = detector._taps._places[0][0]  # type: ignore[attr-defined]
        handle = place.register_forward_hook(lambda *_: calls.append(1))
        height, width = detector.profile.input.canvas(96, 96)
        detector(torch.rand(1, 3, height, width), torch.tensor([[height, width]]))
        handle.remove()
        assert calls == [1]


def saved(family: str, folder: Path, **settings: Any) -> Path:
    build(family).save_pretrained(folder)
    made = {**processor(family).to_dict(), **settings}
    (folder / "preprocessor_config.json").write_text(json.dumps(made))
    return folder


def test_a_folder_of_another_family_goes_through_the_library(tmp_path: Path) -> None:
    detector = load_detector(str(saved("rt_detr", tmp_path)))
    assert (detector.profile.family, detector.profile.name) == ("transformers", tmp_path.name)


def test_names_of_coco_in_other_words_are_cocos(tmp_path: Path) -> None:
    from refinebox.data.categories import COCO_NAMES, match_categories

    others = {"couch": "sofa", "tv": "tvmonitor", "motorcycle": "motorbike", "airplane": "aeroplane"}
    names = [others.get(name, name) for name in COCO_NAMES.values()]
    saved("rt_detr", tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config |= {"id2label": dict(enumerate(names)), "label2id": {name: i for i, name in enumerate(names)}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    model = transformers.AutoModelForObjectDetection.from_config(transformers.AutoConfig.from_pretrained(tmp_path))
    model.save_pretrained(tmp_path)
    detector = load_detector(str(tmp_path))
    assert detector.category_ids == tuple(COCO_NAMES)
    assert match_categories(COCO_NAMES, detector.category_ids, detector.category_names) == {i: i for i in COCO_NAMES}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"do_center_crop": True, "crop_size": {"height": 64, "width": 64}},
            "do_center_crop True .* change pixels",
        ),
        ({"do_resize": False}, "do_resize False .* images are always resized"),
        ({"resample": 1}, "resample 1 .* expected one of 0, 2, 3"),
    ],
)
def test_what_a_processor_does_beyond_the_input_format_is_refused(
    settings: dict[str, Any], message: str, tmp_path: Path
) -> None:
    expected = f"^{tmp_path.name} cannot be opened as a detector of transformers: {message}$"
    with pytest.raises(ValueError, match=expected):
        load_detector(str(saved("rt_detr", tmp_path, **settings)))


def test_a_letterboxing_processor_is_read(tmp_path: Path) -> None:
    sides = {"size": {"max_height": 128, "max_width": 160}, "pad_size": {"height": 128, "width": 160}, "do_pad": True}
    form = load_detector(str(saved("d_fine", tmp_path, do_normalize=True, **sides))).profile.input
    assert (form.fit, form.height, form.width) == ("letterbox", 128, 160)
    assert form.mean == pytest.approx((0.485, 0.456, 0.406))


def test_a_model_of_another_task_is_named(tmp_path: Path) -> None:
    transformers.BertConfig(hidden_size=8, num_attention_heads=1, num_hidden_layers=1).save_pretrained(tmp_path)
    expected = rf"^{tmp_path.name} cannot be opened as a detector of transformers: a bert is no object detector"
    with pytest.raises(ValueError, match=expected):
        load_detector(str(tmp_path))


def test_weights_that_do_not_fit_are_named(tmp_path: Path) -> None:
    saved("rt_detr", tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "decoder_layers": 3}))
    with pytest.raises(ValueError, match=r"^[^\n]*: the weights do not fit; missing keys: .*\.2\."):
        load_detector(str(tmp_path))


def test_without_the_hub_one_line_says_what_to_put_where(monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    expected = (
        r"could not be had from the Hugging Face hub .*; get config\.json, .* from https://huggingface\.co/org/some"
    )
    with pytest.raises(ConnectionError, match=expected):
        load_detector("org/some")


def test_a_real_time_detector_is_exported_with_an_open_batch(tmp_path: Path) -> None:
    """The library asks for the length of a batch, which would fix it; and asserts what ONNX cannot say."""
    pytest.importorskip("onnxscript", reason="an extra: pip install 'refinebox[onnx]'")
    from refinebox.refinement.export import export

    network = build("rt_detr_v2")
    torch.manual_seed(1)  # with 0 the last token chosen and the first not chosen have one score but for rounding
    for name, tensor in network.state_dict().items():
        if tensor.dim() in (2, 4) and "embed" not in name:
            torch.nn.init.kaiming_normal_(tensor)  # or nothing reaches the queries, and all are ranked the same
    network.save_pretrained(tmp_path)
    processor("rt_detr_v2").save_pretrained(tmp_path)
    proof = export(load_detector(str(tmp_path)), tmp_path / "x.onnx").proof
    assert proof.boxes is not None
    assert proof.boxes < 0.01
    assert (proof.batches, proof.sizes) == ((1, 3), ((128, 128),))


def test_a_family_that_sees_images_one_by_one_says_why_it_is_not_exported(tmp_path: Path) -> None:
    from refinebox.refinement.export import export

    expected = "cannot be exported: it looks at images of different sizes one by one$"
    with pytest.raises(ValueError, match=expected):
        export(load_detector(str(saved("yolos", tmp_path))), tmp_path / "x.onnx")
