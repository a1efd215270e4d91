"""What is published: detectors by name, the refiners that were trained on them, their addresses, hashes and AP.

AP is on COCO val2017, in points, as the authors publish it. A refiner fits only the weights that it was trained on; the
entries name one where it is known which weights those are.
"""

from refinebox.detection.entry import Entry, cached
from refinebox.detection.published_deformable import DEFORMABLE
from refinebox.files.download import File, home


def refiner_file(name: str) -> File:
    """Where the refiner of a row is, and where it is kept.

    Raises:
        ValueError: no refiner is published for that detector; the message lists those that have one.
    """
    entry = DETECTORS.get(name)
    if entry is None or not entry.refiner:
        having = ", ".join(name for name, entry in DETECTORS.items() if entry.refiner)
        raise ValueError(f"no refiner is published for {name}; there are some for {having}; train one")
    url = f"https://github.com/YiqunChen1999/RefineBox/raw/master/checkpoints/{entry.refiner}/model_final.pth"
    return File(url, home() / "refiners" / f"{entry.refiner}.pth", REFINERS[entry.refiner])


REFINERS = {  # SHA-256 of the files that the authors of RefineBox published
    "rb_detr_r50_12ep": "7020b7c4e725e145639b8bdf5ae6f42c90033ec2ef1bdcf48eb1b5a925534552",
    "rb_detr_r101_12ep": "8ed0a6d2f1edd8fe32bf342cf20077ca75e928e0fd84b64b2ad33d2d72dac37f",
    "rb_conditional_detr_r50_12ep": "2fc24e1b36f57dc274904fb6b74e0bfc767413b98c0f9550fae3bb97cddbcda4",
    "rb_conditional_detr_r101_12ep": "f29c84dd4af78826439712b1fdebb62ea3bda465ee6875b4bfebe0882593bad1",
    "rb_group_detr_r50_12ep_11-groups": "d5769336191ea8d4285e2472736c3a135e52f35e52ba282aa8986d64b2d7e155",
    "rb_dab_detr_r50_12ep": "8294d26ca9568e50ac05108a5bfacec354971dcc3bbb9510696e562520d7e29d",
    "rb_dab_detr_r101_12ep": "cbc93eba858426e93a2632f5df0c6dcf14c2b30f801049236ac28ce6d06ccb38",
    "rb_dab_detr_swin_t_in1k_12ep": "822c609303c54155283ce9db02a46b14c047692832a64933b4ddd2ce9e1c73b0",
}

_FACEBOOK = "https://dl.fbaipublicfiles.com/detr"
_CONDITIONAL = "https://github.com/DeppMeng/ConditionalDETR/releases/download/v1.0"
_DETREX = "https://github.com/IDEA-Research/detrex-storage/releases/download"
_HUB = "https://huggingface.co/IDEA-Research"
_DN_PAGE = "https://github.com/IDEA-Research/DN-DETR#model-zoo"
_REFINEBOX_PAGE = "https://github.com/YiqunChen1999/RefineBox"
_DC5 = {"dilation": True}

DETECTORS: dict[str, Entry] = {
    "dab-detr-shapes": Entry("dab_detr", "small ResNet", None, "authors", "dab_detr_shapes.safetensors"),
    "detr-r50": Entry(
        "detr",
        "R50",
        42.0,
        "authors",
        f"{_FACEBOOK}/detr-r50-e632da11.pth",
        "e632da11",
        159,
        refiner="rb_detr_r50_12ep",
        refined_ap=44.4,
    ),
    "detr-r50-dc5": Entry(
        "detr", "R50, DC5", 43.3, "authors", f"{_FACEBOOK}/detr-r50-dc5-f0fb7ef5.pth", "f0fb7ef5", settings=_DC5
    ),
    "detr-r101": Entry(
        "detr",
        "R101",
        43.5,
        "authors",
        f"{_FACEBOOK}/detr-r101-2c7b67e5.pth",
        "2c7b67e5",
        232,
        refiner="rb_detr_r101_12ep",
        refined_ap=45.5,
    ),
    "detr-r101-dc5": Entry(
        "detr", "R101, DC5", 44.9, "authors", f"{_FACEBOOK}/detr-r101-dc5-a2e86def.pth", "a2e86def", settings=_DC5
    ),
    "conditional-detr-r50": Entry(
        "conditional_detr",
        "R50",
        41.0,
        "authors",
        f"{_CONDITIONAL}/ConditionalDETR_r50_epoch50.pth",
        refiner="rb_conditional_detr_r50_12ep",
        refined_ap=43.5,
    ),
    "conditional-detr-r50-dc5": Entry(
        "conditional_detr",
        "R50, DC5",
        43.7,
        "authors",
        f"{_CONDITIONAL}/ConditionalDETR_r50dc5_epoch50.pth",
        settings=_DC5,
    ),
    "conditional-detr-r101": Entry(
        "conditional_detr",
        "R101",
        42.8,
        "authors",
        f"{_CONDITIONAL}/ConditionalDETR_r101_epoch50.pth",
        refiner="rb_conditional_detr_r101_12ep",
        refined_ap=45.0,
    ),
    "conditional-detr-r101-dc5": Entry(
        "conditional_detr",
        "R101, DC5",
        45.0,
        "authors",
        f"{_CONDITIONAL}/ConditionalDETR_r101dc5_epoch50.pth",
        settings=_DC5,
    ),
    "conditional-detr-r50-detrex": Entry(
        "conditional_detr",
        "R50",
        41.6,
        "detrex",
        f"{_DETREX}/v0.1.0/conditional_detr_r50_50ep.pth",
        settings={"epsilon": 1e-3},
    ),
    "group-detr-r50": Entry(
        "conditional_detr",
        "R50, 11 groups",
        37.6,
        "detrex",
        _REFINEBOX_PAGE,
        settings={"groups": 11, "epsilon": 1e-3},
        refiner="rb_group_detr_r50_12ep_11-groups",
        refined_ap=40.3,
    ),
    "dab-detr-r50": Entry(
        "dab_detr",
        "R50",
        43.3,
        "detrex",
        f"{_DETREX}/v0.1.0/dab_detr_r50_50ep.pth",
        refiner="rb_dab_detr_r50_12ep",
        refined_ap=45.2,
    ),
    "dab-detr-r50-3pat": Entry(
        "dab_detr", "R50, 3 patterns", 42.8, "detrex", f"{_DETREX}/v0.3.0/converted_dab_detr_r50_3patterns.pth"
    ),
    "dab-detr-r50-dc5": Entry(
        "dab_detr",
        "R50, DC5",
        44.6,
        "detrex",
        f"{_DETREX}/v0.3.0/converted_dab_detr_r50_dc5.pth",
        settings={"dilation": True, "temperature": 10.0},
    ),
    "dab-detr-r50-dc5-3pat": Entry(
        "dab_detr",
        "R50, DC5, 3 patterns",
        45.7,
        "detrex",
        f"{_DETREX}/v0.3.0/converted_dab_detr_r50_dc5_3patterns.pth",
        settings=_DC5,
    ),
    "dab-detr-r50-dc5-fixxy": Entry(
        "dab_detr",
        "R50, DC5, fixed x and y",
        44.7,
        "transformers",
        f"{_HUB}/dab-detr-resnet-50-dc5-fixxy/resolve/main/model.safetensors",
        settings=_DC5,
    ),
    "dab-detr-r101": Entry(
        "dab_detr",
        "R101",
        44.0,
        "detrex",
        f"{_DETREX}/v0.1.0/dab_detr_r101_50ep.pth",
        refiner="rb_dab_detr_r101_12ep",
        refined_ap=45.4,
    ),
    "dab-detr-swin-t": Entry(
        "dab_detr",
        "Swin-T",
        45.2,
        "detrex",
        f"{_DETREX}/v0.1.0/dab_detr_swin_t_in1k_50ep.pth",
        refiner="rb_dab_detr_swin_t_in1k_12ep",
        refined_ap=47.1,
    ),
    "dn-detr-r50": Entry("dn_detr", "R50", 44.7, "detrex", f"{_DETREX}/v0.1.0/dn_detr_r50_50ep.pth"),
    "dn-detr-r50-dc5": Entry(
        "dn_detr", "R50, DC5", 46.3, "detrex", f"{_DETREX}/v0.3.0/converted_dn_detr_r50_dc5.pth", settings=_DC5
    ),
    "dn-detr-r50-dc5-3pat": Entry("dn_detr", "R50, DC5, 3 patterns", 41.7, "authors", _DN_PAGE, settings=_DC5),
    "dn-detr-r101-dc5-3pat": Entry("dn_detr", "R101, DC5, 3 patterns", 42.8, "authors", _DN_PAGE, settings=_DC5),
    **DEFORMABLE,
}


def place(name: str, entry: Entry) -> str:
    """Where the weights of a row are."""
    if entry.bundled:
        return "in the package"
    file = entry.file(name)
    if (file.path if file else cached(name)).is_file():
        return "cached"
    return "on first use" if file else "by hand"
