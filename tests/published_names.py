"""The names that detrex and transformers publish tensors with, written here from the authors' own names."""

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from refinebox.data.categories import COCO_NAMES

COCO80 = [*COCO_NAMES]  # the 80 rows that detrex keeps, in ascending order
UNKNOWN = 91

ENCODER, DECODER = r"(transformer\.encoder\.layers\.\d+\.)", r"(transformer\.decoder\.layers\.\d+\.)"
LONG = {"q": "query", "k": "key"}


def substituted(state: Mapping[str, Tensor], rules: list[tuple[str, Any]]) -> dict[str, Tensor]:
    """All rules in turn on every key."""
    renamed = {}
    for key, tensor in state.items():
        for pattern, replacement in rules:
            key = re.sub(pattern, replacement, key)
        renamed[key] = tensor
    return renamed


def projection(found: re.Match[str]) -> str:
    layer, block, letter, part = found.groups()
    return f"{layer}attentions.{['sa', 'ca'].index(block)}.{LONG[letter]}_{part.replace('sine', '_sine')}_proj."


BACKBONE_TO_DETREX: list[tuple[str, Any]] = [
    (r"^backbone\.0\.body\.bn1\.", "backbone.stem.conv1.norm."),
    (r"^backbone\.0\.body\.conv1\.", "backbone.stem.conv1."),
    (r"^backbone\.0\.body\.layer(\d)\.", lambda found: f"backbone.res{int(found[1]) + 1}."),
    (r"\.downsample\.0\.", ".shortcut."),
    (r"\.downsample\.1\.", ".shortcut.norm."),
    (r"\.bn(\d)\.", r".conv\1.norm."),
]
TRANSFORMER_TO_DETREX: list[tuple[str, Any]] = [
    (r"^refpoint_embed\.", "anchor_box_embed."),
    (r"^label_enc\.", "denoising_generator.label_encoder."),
    (r"^transformer\.decoder\.norm\.", "transformer.decoder.post_norm_layer."),
    (r"(layers\.\d+\.)linear1\.", r"\1ffns.0.layers.0.0."),
    (r"(layers\.\d+\.)linear2\.", r"\1ffns.0.layers.1."),
    (r"(layers\.\d+\.)activation\.", r"\1ffns.0.layers.0.1."),
    (r"(layers\.\d+\.)norm(\d)\.", lambda found: f"{found[1]}norms.{int(found[2]) - 1}."),
    (rf"{DECODER}(sa|ca)_(q|k)(content|pos|possine)_proj\.", projection),
    (rf"{DECODER}ca_qpos_sine_proj\.", r"\1attentions.1.query_pos_sine_proj."),
    (rf"{DECODER}sa_v_proj\.", r"\1attentions.0.value_proj."),
    (rf"{DECODER}ca_v_proj\.", r"\1attentions.1.value_proj."),
    (rf"{DECODER}cross_attn\.", r"\1attentions.1."),
    (rf"{ENCODER}self_attn\.", r"\1attentions.0.attn."),
]


def to_detrex(state: Mapping[str, Tensor], *, dilated: bool = False) -> dict[str, Tensor]:
    """As detrex's models are named; those with a dilated backbone use torchvision's names for it."""
    conditional = any("sa_v_proj" in key for key in state)
    attentions: list[tuple[str, Any]] = [
        (rf"{DECODER}self_attn\.", r"\1attentions.0." if conditional else r"\1attentions.0.attn."),
        (rf"{DECODER}multihead_attn\.", r"\1attentions.1.attn."),
    ]
    backbone = [(r"^backbone\.0\.body\.", "backbone.body.")] if dilated else BACKBONE_TO_DETREX
    return substituted(state, backbone + TRANSFORMER_TO_DETREX + attentions)


def with_80_classes(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The rows of the categories that exist, as detrex's converters cut them."""
    cut = dict(state)
    rows = COCO80 if len(state["class_embed.weight"]) == 91 else [*COCO80, UNKNOWN]
    for key in ("class_embed.weight", "class_embed.bias"):
        cut[key] = state[key][rows]
    if "label_enc.weight" in state:
        cut["label_enc.weight"] = state["label_enc.weight"][[*COCO80, UNKNOWN]]
    return cut


NATIVE_BACKBONE: list[tuple[str, Any]] = [
    (r"^backbone\.0\.body\.conv1\.", "B.embedder.embedder.convolution."),
    (r"^backbone\.0\.body\.bn1\.", "B.embedder.embedder.normalization."),
    (
        r"^backbone\.0\.body\.layer(\d)\.(\d+)\.",
        lambda found: f"B.encoder.stages.{int(found[1]) - 1}.layers.{found[2]}.",
    ),
    (r"\.downsample\.0\.", ".shortcut.convolution."),
    (r"\.downsample\.1\.", ".shortcut.normalization."),
    (r"(layers\.\d+\.)conv(\d)\.", lambda found: f"{found[1]}layer.{int(found[2]) - 1}.convolution."),
    (r"(layers\.\d+\.)bn(\d)\.", lambda found: f"{found[1]}layer.{int(found[2]) - 1}.normalization."),
]
BODY = "model.backbone.conv_encoder.model"
BACKBONES: dict[str, list[tuple[str, Any]]] = {
    "native": [*NATIVE_BACKBONE, (r"^B\.", f"{BODY}.")],
    "native, in memory": [*NATIVE_BACKBONE, (r"^B\.", "model.backbone.model.")],
    "timm": [(r"^backbone\.0\.body\.", f"{BODY}.")],
    "timm, DAB": [(r"^backbone\.0\.body\.", f"{BODY}._backbone.")],
}
HEADS_TO_TRANSFORMERS: list[tuple[str, Any]] = [
    (r"^input_proj\.", "model.input_projection."),
    (r"^query_embed\.", "model.query_position_embeddings."),
    (r"^refpoint_embed\.", "model.query_refpoint_embeddings."),
    (r"^transformer\.patterns\.", "model.patterns."),
    (r"^bbox_embed\.", "bbox_predictor."),
    (r"^transformer\.decoder\.norm\.", "model.decoder.layernorm."),
    (rf"{ENCODER}norm1\.", r"\1self_attn_layer_norm."),
    (rf"{ENCODER}norm2\.", r"\1final_layer_norm."),
]
DAB_DECODER: list[tuple[str, Any]] = [
    (
        rf"{DECODER}(sa|ca)_(q|k)(content|pos)_proj\.",
        lambda f: f"{f[1]}{NESTED[f[2]]}_{LONG[f[3]]}_{f[4]}_proj.",
    ),
    (rf"{DECODER}ca_qpos_sine_proj\.", r"\1cross_attn.cross_attn_query_pos_sine_proj."),
    (rf"{DECODER}(sa|ca)_v_proj\.", lambda f: f"{f[1]}{NESTED[f[2]]}_value_proj."),
    (rf"{DECODER}(self|cross)_attn\.out_proj\.", r"\1\2_attn.\2_attn.output_proj."),
    (rf"{DECODER}norm1\.", r"\1self_attn.self_attn_layer_norm."),
    (rf"{DECODER}norm2\.", r"\1cross_attn.cross_attn_layer_norm."),
    (rf"{DECODER}norm3\.", r"\1mlp.final_layer_norm."),
    (rf"{DECODER}(linear|activation)", r"\1mlp.\2"),
]
NESTED = {"sa": "self_attn.self_attn", "ca": "cross_attn.cross_attn"}
OTHER_DECODERS: list[tuple[str, Any]] = [
    (r"^class_embed\.", "class_labels_classifier."),
    (rf"{DECODER}(?:multihead|cross)_attn\.", r"\1encoder_attn."),
    (rf"{DECODER}norm1\.", r"\1self_attn_layer_norm."),
    (rf"{DECODER}norm2\.", r"\1encoder_attn_layer_norm."),
    (rf"{DECODER}norm3\.", r"\1final_layer_norm."),
]
FEEDFORWARD_TO_TRANSFORMERS: list[tuple[str, Any]] = [
    (r"\.linear(\d)\.", r".fc\1."),
    (r"\.activation\.", ".activation_fn."),
    (r"^transformer\.", "model."),
]


def to_transformers(state: Mapping[str, Tensor], backbone: str = "native") -> dict[str, Tensor]:
    """As transformers names its models on disk."""
    decoder = DAB_DECODER if "refpoint_embed.weight" in state else OTHER_DECODERS
    rules = BACKBONES[backbone] + HEADS_TO_TRANSFORMERS + decoder + FEEDFORWARD_TO_TRANSFORMERS
    apart = {}
    for key, tensor in substituted(state, rules).items():
        found = re.search(r"in_proj_(weight|bias)$", key)
        if found is None:
            apart[key] = tensor
        else:
            for letter, part in zip("qkv", tensor.chunk(3), strict=True):
                apart[f"{key[: found.start()]}{letter}_proj.{found[1]}"] = part
    return apart
