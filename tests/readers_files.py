"""What a reader of the documents has at hand, made tiny: data, pictures, results, weights and folders of models."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from documents import BLOCKS
from invocation import done
from tiny_families import build

from refinebox.data import shapes
from refinebox.data.categories import COCO_NAMES
from refinebox.detection.zoo import describe, load_detector
from refinebox.files import checkpoint
from refinebox.refinement.refiner import Refiner
from refinebox.refinement.upgraded import apply
from refinebox.training.run import write_refiner

DETECTOR = "dab-detr-shapes"
IMAGES = {"train": 6, "val": 4}
Make = Callable[[Path], None]


def data_of(*names: str) -> Make:
    """A small data set whose categories have these names, and numbers from 1."""

    def make(place: Path) -> None:
        for split, count in IMAGES.items():
            shapes.generate(place, split, count, seed=0)
            path = place / f"annotations/instances_{split}.json"
            content = json.loads(path.read_text())
            content["categories"] = [{"id": number, "name": name} for number, name in enumerate(names, start=1)]
            for entry in content["annotations"]:
                entry["category_id"] = (entry["category_id"] - 1) % len(names) + 1
            path.write_text(json.dumps(content))

    return make


data = data_of(*shapes.CATEGORIES)


def photos(place: Path) -> None:
    data(beside(place))
    shutil.copytree(beside(place) / "val", place)


def results(split: str, *, numbers_of_files: bool = False) -> Make:
    """What the bundled detector finds in the images of a split."""

    def make(place: Path) -> None:
        folder = beside(place)
        data(folder)
        where = "--annotations", folder / f"annotations/instances_{split}.json", "--images", folder / split
        done("eval", DETECTOR, *where, "--output", folder)
        rows = json.loads((folder / "before.json").read_text())
        place.write_text(json.dumps([{**row, "image_id": row["image_id"] - numbers_of_files} for row in rows]))

    return make


def beside(place: Path) -> Path:
    """Where what it is made from lies."""
    return place.with_name(f"for {place.name}")


def weights(place: Path) -> None:
    """Of the bundled detector, as training scripts leave them: a score column for each category id, and 0 unused."""
    tensors = dict(load_detector(DETECTOR).tensors())
    tensors |= {
        name: torch.cat((torch.full_like(tensor[:1], -10 * name.endswith("bias")), tensor))
        for name, tensor in tensors.items()
        if name.startswith("class_embed.")
    }
    torch.save({"model": tensors}, place)


def of_ours(place: Path) -> None:
    bundled = load_detector(DETECTOR)
    checkpoint.write(place, bundled.tensors(), {"kind": "detector", "detector": describe(bundled)})


def upgraded(place: Path) -> None:
    """A tiny detector with a refiner that has learned nothing."""
    tiny, detector, refiner = build("dab_detr"), beside(place), beside(beside(place))
    tiny.profile = replace(tiny.profile, category_ids=tuple(range(1, len(shapes.CATEGORIES) + 1)))
    checkpoint.write(detector, tiny.tensors(), {"kind": "detector", "detector": describe(tiny)})
    write_refiner(refiner, Refiner(tiny.channels, tiny.strides), tiny, {}, {"before": None, "after": None})
    apply(tiny, detector, refiner, place)


def of_transformers(family: str) -> Make:
    """A folder that transformers wrote, of a model that knows the generated shapes by name."""

    def make(place: Path) -> None:
        import transformers
        import transformers_models

        model = transformers_models.build(family)
        model.config.id2label = dict(enumerate(shapes.CATEGORIES))
        model.save_pretrained(place)
        size = {"height": 128, "width": 128}
        transformers.RTDetrImageProcessor(size=size).save_pretrained(place)

    return make


def prompted(place: Path) -> None:
    import prompted_models

    for part in prompted_models.build("grounding-dino"):
        part.save_pretrained(place)


def of_torchvision(place: Path) -> None:
    import torchvision

    torch.manual_seed(0)
    columns = len(shapes.CATEGORIES) + 1
    network = torchvision.models.get_model(place.stem, weights=None, weights_backbone=None, num_classes=columns)
    torch.save(network.state_dict(), place)


def of_libreyolo(place: Path) -> None:
    from refinebox.adapters import libreyolo

    torch.manual_seed(0)
    kind, size = libreyolo.find("yolox-n", None)
    torch.save(kind._from_scratch(size=size, nb_classes=len(COCO_NAMES), device="cpu").model.state_dict(), place)


def of_effdet(place: Path) -> None:
    import effdet

    torch.manual_seed(0)
    network = effdet.create_model(place.stem, pretrained_backbone=False, num_classes=len(shapes.CATEGORIES))
    torch.save(network.state_dict(), place)


def adapter(place: Path) -> None:
    """The file that docs/adapters.md shows."""
    place.write_text(next(block.code for block in BLOCKS if block.language == "python" and "adapters" in block.place))


def of_owl(place: Path) -> None:
    from prompted_models import clip
    from transformers import OwlViTConfig, OwlViTForObjectDetection, OwlViTImageProcessor, OwlViTProcessor

    torch.manual_seed(0)
    part = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = OwlViTConfig(
        text_config={**part, "vocab_size": 58, "bos_token_id": 56, "eos_token_id": 57},
        vision_config={**part, "image_size": 64, "patch_size": 8},
        projection_dim=32,
    )
    OwlViTForObjectDetection(config).save_pretrained(place)
    OwlViTProcessor(OwlViTImageProcessor(size={"height": 64, "width": 64}), clip()).save_pretrained(place)


FILES: dict[str, Make] = {
    **dict.fromkeys(("pages", "tables", "bccd"), data),
    **dict.fromkeys(("coco", "coco-mini"), data_of(*list(COCO_NAMES.values())[:6])),
    "pets": data_of("cat", "dog"),
    **dict.fromkeys(("photos", "scans"), photos),
    **dict.fromkeys(("detections.json", "val.json"), results("val")),
    "new.json": results("val", numbers_of_files=True),
    "train.json": results("train"),
    "mine.pth": weights,
    "better.safetensors": upgraded,
    "bccd.safetensors": of_ours,
    "docling-project/docling-layout-heron": of_transformers("rt_detr"),
    "microsoft/table-transformer-detection": of_transformers("table-transformer"),
    "IDEA-Research/grounding-dino-tiny": prompted,
    "ssdlite320_mobilenet_v3_large.pth": of_torchvision,
    "LibreYOLOXn.pt": of_libreyolo,
    "tf_efficientdet_lite0.pth": of_effdet,
    "owl.py": adapter,
    "google/owlvit-base-patch32": of_owl,
}
ALSO = {"owl:build": ("owl.py", "google/owlvit-base-patch32")}  # what a word needs that does not name it
