"""Checkpoints as mmdetection writes them, and the same tensors under the names of the other layouts."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from published_names import BACKBONE_TO_DETREX, substituted
from torch import Tensor

from refinebox.data.categories import COCO_NAMES

NAMES = tuple(COCO_NAMES.values())
VERSION_3_META: dict[str, Any] = {"dataset_meta": {"classes": NAMES}, "epoch": 12}
VERSION_2_META: dict[str, Any] = {"CLASSES": NAMES, "epoch": 12}


def write(path: Path, state: Mapping[str, Tensor], queries: int | None = None) -> Path:
    """A file as it is published; ``queries`` are in its configuration, where tensors do not tell them."""
    if any(key.startswith("query_head.") for key in state):
        meta = VERSION_2_META
    else:
        meta = VERSION_3_META | ({"cfg": f"model = dict(type='DDQDETR', num_queries={queries})"} if queries else {})
    torch.save({"state_dict": dict(state), "meta": meta}, path)
    return path


DECODER = r"^(transformer\.decoder\.layers\.\d+\.)"
ENCODER = r"^(transformer\.encoder\.layers\.\d+\.)"
FEEDFORWARD: list[tuple[str, Any]] = [(r"linear1\.", "ffn.layers.0.0."), (r"linear2\.", "ffn.layers.1.")]


def to_mmdet3(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The authors' names as version 3's."""
    rules: list[tuple[str, Any]] = [
        (r"^backbone\.0\.body\.", "backbone."),
        (r"^input_proj\.(\d+)\.0\.", lambda found: f"{neck(state, int(found[1]))}.conv."),
        (r"^input_proj\.(\d+)\.1\.", lambda found: f"{neck(state, int(found[1]))}.gn."),
        *FEEDFORWARD,
        (rf"{DECODER}norm(\d)\.", lambda found: f"{found[1]}norms.{'213'.index(found[2])}."),
        (rf"{ENCODER}norm(\d)\.", lambda found: f"{found[1]}norms.{int(found[2]) - 1}."),
        (rf"{DECODER}self_attn\.", r"\1self_attn.attn."),
        (r"^transformer\.(en|de)coder\.", r"\1coder."),
        (r"^transformer\.enc_output", "memory_trans_fc"),
        (r"^memory_trans_fc_norm", "memory_trans_norm"),
        (r"^transformer\.pos_trans\.", "pos_trans_fc."),
        (r"^transformer\.pos_trans_norm\.", "pos_trans_norm."),
        (r"^transformer\.reference_points\.", "reference_points_fc."),
        (r"^(transformer\.tgt_embed|query_embed)\.", "query_embedding."),
        (r"^transformer\.level_embed$", "level_embed"),
        (r"^class_embed\.", "bbox_head.cls_branches."),
        (r"^bbox_embed\.(\d+)\.layers\.(\d)\.", lambda f: f"bbox_head.reg_branches.{f[1]}.{2 * int(f[2])}."),
    ]
    return substituted(state, rules)


def neck(state: Mapping[str, Tensor], level: int) -> str:
    """The projection of a level in mmdetection's and detrex's necks."""
    projected = sum(
        key.startswith("input_proj") and key.endswith(".0.weight") and tensor.shape[-1] == 1
        for key, tensor in state.items()
    )
    return f"neck.convs.{level}" if level < projected else f"neck.extra_convs.{level - projected}"


def to_mmdet2(state: Mapping[str, Tensor], head: str = "bbox_head") -> dict[str, Tensor]:
    """The authors' names as version 2's."""
    rules: list[tuple[str, Any]] = [
        (r"^encoder\.", f"{head}.transformer.encoder."),
        (r"^decoder\.", f"{head}.transformer.decoder."),
        (r"ffn\.layers", "ffns.0.layers"),
        (r"(transformer\.encoder\.layers\.\d+\.)self_attn\.", r"\1attentions.0."),
        (r"(transformer\.decoder\.layers\.\d+\.)self_attn\.", r"\1attentions.0."),
        (r"(transformer\.decoder\.layers\.\d+\.)cross_attn\.", r"\1attentions.1."),
        (r"ref_point_head\.layers\.0\.", "ref_point_head.0."),
        (r"ref_point_head\.layers\.1\.", "ref_point_head.2."),
        (r"^memory_trans_fc\.", f"{head}.transformer.enc_output."),
        (r"^memory_trans_norm\.", f"{head}.transformer.enc_output_norm."),
        (r"^pos_trans_fc\.", f"{head}.transformer.pos_trans."),
        (r"^pos_trans_norm\.", f"{head}.transformer.pos_trans_norm."),
        (r"^reference_points_fc\.", f"{head}.transformer.reference_points."),
        (r"^query_embedding\.", f"{head}.query_embedding."),
        (r"^level_embed$", f"{head}.transformer.level_embeds"),
        (r"^bbox_head\.", f"{head}."),
    ]
    return substituted(to_mmdet3(state), rules)


def to_detrex(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The authors' names as detrex's, heads named twice and biases of the projections included."""
    rules: list[tuple[str, Any]] = [
        *BACKBONE_TO_DETREX,
        (r"^input_proj\.(\d+)\.0\.", lambda found: f"{neck(state, int(found[1]))}.conv."),
        (r"^input_proj\.(\d+)\.1\.", lambda found: f"{neck(state, int(found[1]))}.norm."),
        (r"linear1\.", "ffns.0.layers.0.0."),
        (r"linear2\.", "ffns.0.layers.1."),
        (rf"{DECODER}norm(\d)\.", lambda found: f"{found[1]}norms.{'213'.index(found[2])}."),
        (rf"{ENCODER}norm(\d)\.", lambda found: f"{found[1]}norms.{int(found[2]) - 1}."),
        (rf"{ENCODER}self_attn\.", r"\1attentions.0."),
        (rf"{DECODER}self_attn\.", r"\1attentions.0.attn."),
        (rf"{DECODER}cross_attn\.", r"\1attentions.1."),
        (r"^transformer\.level_embed$", "transformer.level_embeds"),
        (r"^query_embed\.", "query_embedding."),
    ]
    return substituted(twice(with_biases(state)), rules) | {"label_enc.weight": torch.ones(80, 256)}


def to_original(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """As the authors of Deformable DETR and DINO publish: heads named twice, DINO's for the encoder's tokens apart."""
    state = twice(with_biases(state))
    if not any("ref_point_head" in key for key in state):
        return state
    last = max(int(key.split(".")[1]) for key in state if key.startswith("class_embed."))
    rules: list[tuple[str, Any]] = [
        (rf"^(class|bbox)_embed\.{last}\.", r"transformer.enc_out_\1_embed."),
        (rf"^transformer\.decoder\.(class|bbox)_embed\.{last}\.", r"transformer.enc_out_\1_embed."),
    ]
    return substituted(state, rules) | {"label_enc.weight": torch.ones(81, 256)}


def with_biases(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """With a bias of zero in every projection, which mmdetection has none of."""
    biases = {
        key.replace("weight", "bias"): torch.zeros(len(tensor))
        for key, tensor in state.items()
        if re.fullmatch(r"input_proj\.\d+\.0\.weight", key)
    }
    return {**state, **biases}


def twice(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """With the heads once more under the decoder, from where it uses them."""
    again = {f"transformer.decoder.{key}": state[key] for key in state if re.match("(class|bbox)_embed", key)}
    return {**state, **again}
