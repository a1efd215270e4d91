"""The published deformable DETRs by name; AP is on COCO val2017, in points, as the authors publish it.

Rows of one architecture with several names differ in what tensors cannot tell: the constants of the position embedding
(``-improved``) and whether images lie on a grey square (``-lsj``). Files that Sense-X alone publishes are in a folder
to take them from by hand.
"""

from refinebox.detection.entry import Entry

_MMDET = "https://download.openmmlab.com/mmdetection/v3.0"
_DETREX = "https://github.com/IDEA-Research/detrex-storage/releases/download"
_SENSE_X_PAGE = "https://github.com/Sense-X/Co-DETR#model-zoo"
_FOUR, _FIVE = {"levels": 4}, {"levels": 5}
_SQUARE = 1024  # of models trained with large-scale jitter
_ON_SQUARE = {**_FIVE, "variant": "Co-DINO", "square": _SQUARE}


def _deformable(variant: str, ap: float, file: str, sha256: str) -> Entry:
    folder, _, _ = file.partition("_coco_")
    source = f"{_MMDET}/deformable_detr/{folder}_coco/{file}-{sha256}.pth"
    backbone = "R50" if variant == "plain" else f"R50, {variant}"
    return Entry("deformable_detr", backbone, ap, "mmdet3", source, sha256, settings={**_FOUR, "variant": variant})


def _co_dino(backbone: str, ap: float, file: str, sha256: str, side: int = 0, long_side: int = 1333) -> Entry:
    return Entry(
        "co_detr",
        backbone,
        ap,
        "mmdet2",
        f"{_MMDET}/codetr/{file}-{sha256}.pth",
        sha256,
        settings=_ON_SQUARE if side == _SQUARE else {**_FIVE, "variant": "Co-DINO"},
        licence="MIT",
        short_side=side or 800,
        long_side=long_side,
    )


DEFORMABLE: dict[str, Entry] = {
    "deformable-detr-r50": _deformable("plain", 44.3, "deformable-detr_r50_16xb2-50e_coco_20221029_210934", "6bc7d21b"),
    "deformable-detr-r50-refine": _deformable(
        "refine", 46.2, "deformable-detr-refine_r50_16xb2-50e_coco_20221022_225303", "844e0f93"
    ),
    "deformable-detr-r50-two-stage": _deformable(
        "two-stage", 47.0, "deformable-detr-refine-twostage_r50_16xb2-50e_coco_20221021_184714", "acc8a5ff"
    ),
    "dino-r50-4scale": Entry(
        "dino",
        "R50, 4 levels",
        49.0,
        "mmdet3",
        f"{_MMDET}/dino/dino-4scale_r50_8xb2-12e_coco/dino-4scale_r50_8xb2-12e_coco_20221202_182705-55b2bba2.pth",
        "55b2bba2",
        settings=_FOUR,
    ),
    "dino-r50-4scale-improved": Entry(
        "dino",
        "R50, 4 levels",
        50.1,
        "mmdet3",
        f"{_MMDET}/dino/dino-4scale_r50_improved_8xb2-12e_coco/"
        "dino-4scale_r50_improved_8xb2-12e_coco_20230818_162607-6f47a913.pth",
        "6f47a913",
        settings={**_FOUR, "temperature": 10000.0, "offset": -0.5},
    ),
    "dino-r50-4scale-detrex": Entry(
        "dino", "R50, 4 levels", 49.2, "detrex", f"{_DETREX}/v0.2.0/dino_r50_4scale_12ep_49_2AP.pth", settings=_FOUR
    ),
    "dino-r50-5scale": Entry(
        "dino", "R50, 5 levels", 49.6, "detrex", f"{_DETREX}/v0.2.1/dino_r50_5scale_12ep.pth", settings=_FIVE
    ),
    "dino-swin-l": Entry(
        "dino",
        "Swin-L, 5 levels",
        57.2,
        "mmdet3",
        f"{_MMDET}/dino/dino-5scale_swin-l_8xb2-12e_coco/dino-5scale_swin-l_8xb2-12e_coco_20230228_072924-a654145f.pth",
        "a654145f",
        settings=_FIVE,
    ),
    "dino-swin-l-detrex": Entry(
        "dino",
        "Swin-L, 5 levels",
        58.5,
        "detrex",
        f"{_DETREX}/v0.2.1/dino_swin_large_384_5scale_36ep.pth",
        settings=_FIVE,
    ),
    "ddq-detr-r50-4scale": Entry(
        "ddq",
        "R50, 4 levels",
        51.4,
        "mmdet3",
        f"{_MMDET}/ddq/ddq-detr-4scale_r50_8xb2-12e_coco/ddq-detr-4scale_r50_8xb2-12e_coco_20230809_170711-42528127.pth",
        "42528127",
        settings=_FOUR,
    ),
    "ddq-detr-r50-5scale": Entry(
        "ddq", "R50, 5 levels", 52.1, "mmdet3", f"{_MMDET}/ddq/ddq_detr_5scale_coco_1x.pth", settings=_FIVE
    ),
    "ddq-detr-swin-l": Entry(
        "ddq", "Swin-L, 4 levels", 58.7, "mmdet3", f"{_MMDET}/ddq/ddq_detr_swinl_30e.pth", settings=_FOUR
    ),
    "co-deformable-detr-r50": Entry(
        "co_detr",
        "R50, 4 levels",
        49.5,
        "mmdet2",
        _SENSE_X_PAGE,
        settings={**_FOUR, "variant": "Co-Deformable-DETR"},
        licence="MIT",
    ),
    "co-dino-r50": _co_dino("R50, 5 levels", 52.1, "co_dino_5scale_r50_1x_coco", "7481f903"),
    "co-dino-r50-lsj": _co_dino(
        "R50, 5 levels, on a square",
        52.0,
        "co_dino_5scale_r50_lsj_8xb2_1x_coco/co_dino_5scale_r50_lsj_8xb2_1x_coco",
        "69a72d67",
        _SQUARE,
        _SQUARE,
    ),
    "co-dino-r50-lsj-3x": _co_dino(
        "R50, 5 levels, on a square", 54.8, "co_dino_5scale_lsj_r50_3x_coco", "fe5a6829", _SQUARE, _SQUARE
    ),
    "co-dino-swin-l": _co_dino(
        "Swin-L, 5 levels", 64.1, "co_dino_5scale_swin_large_16e_o365tococo", "614254c9", 1280, 2048
    ),
    "co-dino-swin-l-1x": _co_dino("Swin-L, 5 levels", 58.9, "co_dino_5scale_swin_large_1x_coco", "27c13da4"),
    "co-dino-swin-l-3x": _co_dino("Swin-L, 5 levels", 60.0, "co_dino_5scale_swin_large_3x_coco", "d7a6d8af"),
    "co-dino-swin-l-lsj": _co_dino(
        "Swin-L, 5 levels, on a square", 59.3, "co_dino_5scale_lsj_swin_large_1x_coco", "3af73af2", _SQUARE, _SQUARE
    ),
}
