"""Which layout and which family a DETR-like checkpoint is of, told from its keys alone.

Tensors keep their values but for three: transformers stores the query, key and value projections of an attention apart,
a shared tensor may be stored under one of its two names only, and mmdetection orders a Swin Transformer's patches
otherwise.
"""

from collections.abc import Callable, Mapping

import torch
from refinebox.adapters.layouts import deformable, detrex, mmdet, mmdet2, mmdet3, transformers
from refinebox.adapters.layouts.names import BODY, Table, rename
from torch import Tensor

from refinebox.detection.profile import Layout

ALIASES = ("transformer.decoder.bbox_embed.", "transformer.decoder.class_embed.")  # heads as the decoder uses them
WEIGHTLESS = ("num_batches_tracked", "relative_position_index", "criterion.empty_weight")
TABLES: dict[Layout, Callable[[Mapping[str, Tensor]], Table]] = {
    "authors": deformable.table,
    "detrex": detrex.table,
    "transformers": transformers.table,
    "mmdet2": mmdet2.table,
    "mmdet3": mmdet3.table,
}


def to_authors(state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], Layout]:
    """The state dict in the authors' layout, and the layout that it came in; told from the keys alone.

    Leaves out what holds no weight: aliases, counters, indices and the mask heads of panoptic models. A Swin
    Transformer's missing normalisations are filled with ones and zeros, as in the published refiner's training.
    """
    state = plain(state)
    layout = layout_of(state)
    renamed = rename(state, TABLES[layout](state))
    if any(key.startswith("backbone.stages.") for key in state):
        renamed = mmdet.merged_as_the_authors(renamed)
    for alias in [key for key in renamed if key.startswith(ALIASES)]:
        tensor = renamed.pop(alias)
        renamed.setdefault(alias.removeprefix("transformer.decoder."), tensor)
    weights = {key: tensor for key, tensor in renamed.items() if not key.endswith(WEIGHTLESS)}
    if layout == "transformers":
        weights = transformers.with_every_head(fused(weights))
    return complete_norms(weights), layout


def plain(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Without what wraps a whole model: ``module.`` of distributed training, ``detr.`` of panoptic models."""
    for wrapper in ("module.", "detr."):
        inside = {key.removeprefix(wrapper): tensor for key, tensor in state.items() if key.startswith(wrapper)}
        state = inside or state
    return dict(state)


def layout_of(state: Mapping[str, Tensor]) -> Layout:
    """The layout, told from the keys; ``authors`` where there is no backbone that is known."""
    beginnings: dict[str, Layout] = {
        "backbone.0.": "authors",
        "model.": "transformers",
        "query_head.dn_generator.": "mmdet3",
        "query_head.transformer.": "mmdet2",
        "bbox_head.transformer.": "mmdet2",
        "bbox_head.cls_branches.": "mmdet3",
        "backbone.": "detrex",
    }
    for beginning, layout in beginnings.items():
        if any(key.startswith(beginning) for key in state):
            return layout
    return "authors"


def fused(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Separate ``q_proj``, ``k_proj`` and ``v_proj`` of an attention stacked to its ``in_proj``, in this order."""
    result = dict(state)
    for key in state:
        names = [key.replace(".q_proj.", f".{letter}_proj.") for letter in "qkv"]
        # an incomplete attention stays as it is, and whoever loads it says which tensors do not fit
        if ".q_proj." in key and all(name in state for name in names):
            result[key.replace("q_proj.", "in_proj_")] = torch.cat([result.pop(name) for name in names])
    return result


def complete_norms(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Adds the normalisations that a Swin Transformer's file lacks because its detector reads only the last map."""
    last = state.get(f"{BODY}norm3.weight")
    if last is not None:
        for stage in range(3):
            ones = last.new_ones(len(last) >> (3 - stage))
            state.setdefault(f"{BODY}norm{stage}.weight", ones)
            state.setdefault(f"{BODY}norm{stage}.bias", torch.zeros_like(ones))
    return state


def family_of(state: Mapping[str, Tensor]) -> str | None:
    """The adapter that reads a state dict in the authors' layout; None where no family fits."""
    if "transformer.level_embed" in state:
        return deformable_family_of(state)
    if "refpoint_embed.weight" in state:
        return "dn_detr" if "label_enc.weight" in state else "dab_detr"
    if any(key.startswith("transformer.decoder.ref_point_head.") for key in state):
        return "conditional_detr"
    return "detr" if "query_embed.weight" in state else None


def deformable_family_of(state: Mapping[str, Tensor]) -> str:
    """The adapter of a deformable detector's state dict in the authors' layout."""
    if "query_map.weight" in state:
        return "ddq"
    if "transformer.query_embed.weight" in state:
        return "co_detr"
    if any(key.startswith("transformer.decoder.ref_point_head.") for key in state):
        return "dino"
    contents = "query_embed.weight" in state
    return "co_detr" if contents and "transformer.pos_trans.weight" in state else "deformable_detr"
