"""Small models of transformers with random weights, one of every family that detects objects."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import transformers as library

CATEGORIES = 6
RESNET = {"embedding_size": 8, "hidden_sizes": [16, 16, 24, 32], "depths": [1, 1, 1, 1]}
LAYERS = {
    f"{part}_{what}": value
    for part in ("encoder", "decoder")
    for what, value in (("layers", 2), ("ffn_dim", 32), ("attention_heads", 4))
}
DETR = {**LAYERS, "num_queries": 10, "num_labels": CATEGORIES, "use_timm_backbone": False, "backbone": None}
STAGES = ["stage2", "stage3", "stage4"]
REAL_TIME = {
    "encoder_hidden_dim": 32,
    "encoder_in_channels": [16, 24, 32],
    "encoder_layers": 1,
    "encoder_ffn_dim": 32,
    "encoder_attention_heads": 4,
    "decoder_in_channels": [32, 32, 32],
    "d_model": 32,
    "decoder_layers": 2,
    "decoder_ffn_dim": 32,
    "decoder_attention_heads": 4,
    "num_queries": 20,
    "num_labels": CATEGORIES,
    "hidden_expansion": 0.5,
    "num_denoising": 0,
}
TRANSFORMER = {
    "d_model": 32,
    "decoder_ffn_dim": 32,
    "decoder_layers": 1,
    "decoder_self_attention_heads": 4,
    "decoder_cross_attention_heads": 4,
    "num_queries": 10,
    "num_labels": CATEGORIES,
    "group_detr": 2,
    "decoder_n_points": 2,
}
VIT = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "image_size": 64, "mlp_ratio": 2}


def resnet(*stages: str) -> Any:
    return library.ResNetConfig(**RESNET, out_features=list(stages))


def rt_resnet() -> Any:
    sizes = {"embedding_size": 16, "hidden_sizes": [16, 16, 24, 32], "depths": [1, 1, 1, 1], "layer_type": "basic"}
    return library.RTDetrResNetConfig(**sizes, out_features=STAGES)


def hgnet(*stages: str) -> Any:
    return library.HGNetV2Config(
        stem_channels=[3, 8, 8],
        hidden_sizes=[16, 16, 24, 32],
        depths=[1, 1, 1, 1],
        stage_in_channels=[8, 16, 16, 24],
        stage_mid_channels=[8, 8, 8, 8],
        stage_out_channels=[16, 16, 24, 32],
        stage_num_blocks=[1, 1, 1, 1],
        stage_numb_of_layers=[1, 1, 1, 1],
        out_features=list(stages or STAGES),
    )


def dinov3() -> Any:
    return library.DINOv3ViTConfig(
        hidden_size=32,
        intermediate_size=32,
        num_hidden_layers=3,
        num_attention_heads=2,
        out_indices=[1, 2, 3],
        apply_layernorm=False,
    )


def detr(name: str, width: str = "d_model", *stages: str, **options: Any) -> Any:
    config = {**DETR, width: 32, "backbone_config": resnet(*(stages or ("stage4",))), **options}
    return model(name, getattr(library, f"{name}Config")(**config))


def model(name: str, config: Any) -> Any:
    return getattr(library, f"{name}ForObjectDetection")(config)


def real_time(name: str, backbone: Callable[[], Any] = hgnet, **options: Any) -> Any:
    config = getattr(library, f"{name}Config")(backbone_config=backbone(), **{**REAL_TIME, **options})
    return model(name, config)


FAMILIES: dict[str, Callable[[], Any]] = {
    "detr": lambda: detr("Detr"),
    "conditional_detr": lambda: detr("ConditionalDetr"),
    "dab-detr": lambda: detr("DabDetr", "hidden_size"),
    "table-transformer": lambda: detr("TableTransformer"),
    "deformable_detr": lambda: detr("DeformableDetr", "d_model", *STAGES),
    "deformable_detr, one scale": lambda: detr("DeformableDetr", num_feature_levels=1),
    "deformable_detr, two stages": lambda: detr(
        "DeformableDetr", "d_model", *STAGES, two_stage=True, two_stage_num_proposals=20, with_box_refine=True
    ),
    "yolos": lambda: model(
        "Yolos",
        library.YolosConfig(
            hidden_size=32,
            num_hidden_layers=2,
            num_attention_heads=4,
            intermediate_size=32,
            image_size=[64, 96],
            num_detection_tokens=10,
            num_labels=CATEGORIES,
        ),
    ),
    "rt_detr": lambda: real_time("RTDetr", rt_resnet),
    "rt_detr_v2": lambda: real_time("RTDetrV2", rt_resnet),
    "d_fine": lambda: real_time("DFine"),
    "deimv2": lambda: real_time("Deimv2"),
    "deimv2, dinov3": lambda: real_time("Deimv2", dinov3, encoder_in_channels=[32, 32, 32]),
    "pp_doclayout_v2": lambda: real_time(
        "PPDocLayoutV2",
        class_thresholds=[0.5] * CATEGORIES,
        class_order=list(range(CATEGORIES)),
        reading_order_config={
            "hidden_size": 16,
            "num_attention_heads": 2,
            "intermediate_size": 16,
            "num_hidden_layers": 1,
            "coordinate_size": 8,
            "shape_size": 8,
        },
    ),
    "pp_doclayout_v3": lambda: real_time(
        "PPDocLayoutV3",
        partial(hgnet, "stage1", *STAGES),
        x4_feat_dim=16,
        mask_feature_channels=[8, 8],
        num_prototypes=4,
    ),
    "pp_doclayout_v4": lambda: real_time("PPDocLayoutV4"),
    "lw_detr": lambda: model(
        "LwDetr",
        library.LwDetrConfig(
            backbone_config=library.LwDetrViTConfig(
                **VIT, patch_size=16, window_block_indices=[0], num_windows=4, out_indices=[1, 2]
            ),
            projector_scale_factors=[1.0],
            **TRANSFORMER,
        ),
    ),
    "rf_detr": lambda: model(
        "RfDetr",
        library.RfDetrConfig(
            backbone_config={
                **VIT,
                "model_type": "rf_detr_dinov2",
                "patch_size": 14,
                "num_windows": 2,
                "out_features": ["stage1", "stage2"],
            },
            **TRANSFORMER,
        ),
    ),
}
SIDES = {"rf_detr": 112, "lw_detr": 128}  # of the square images of families that take one size; others take 128


def build(family: str) -> Any:
    """The model of a family, with weights large enough that its queries differ."""
    torch.manual_seed(0)
    network = FAMILIES[family]().eval()
    for tensor in network.state_dict().values():
        if tensor.is_floating_point() and tensor.dim() > 1:
            tensor.mul_(1.5)
    return network
