"""The layouts that DETR-like checkpoints are published in, each renamed to the authors' own.

A table lists the names of one layout beside the authors' names. Both are beginnings of keys, ``#`` stands for a number,
and the first row that fits a key counts. Tensors keep their values but for two: transformers stores the query, key and
value projections of an attention apart, and a shared tensor may be stored under one of its two names only.
"""

import re
from collections.abc import Iterable, Mapping
from itertools import product

import torch
from torch import Tensor

from refinebox.detection.profile import Layout

Table = tuple[tuple[str, str], ...]

BODY = "backbone.0.body."
ALIAS = "transformer.decoder.bbox_embed."  # the box head once more, from where the decoder uses it
WEIGHTLESS = ("num_batches_tracked", "relative_position_index", "criterion.empty_weight")
ENCODER_LAYER, DECODER_LAYER = "transformer.encoder.layers.#.", "transformer.decoder.layers.#."


def _under(prefixes: tuple[str, str], names: Iterable[tuple[str, str]]) -> Table:
    return tuple((prefixes[0] + there, prefixes[1] + here) for there, here in names)


# content and position projections of self-attention ("sa", detrex's 0) and cross-attention ("ca", detrex's 1)
DETREX_PROJECTIONS = [
    *(
        (f"attentions.{index}.{longer}_{part}_proj.", f"{prefix}_{shorter}{part}_proj.")
        for (index, prefix), (longer, shorter), part in product(
            enumerate(("sa", "ca")), (("query", "q"), ("key", "k")), ("content", "pos_sine", "pos")
        )
    ),
    ("attentions.0.value_proj.", "sa_v_proj."),
    ("attentions.1.value_proj.", "ca_v_proj."),
]
DETREX_FEEDFORWARD = [
    ("ffns.0.layers.0.0.", "linear1."),
    ("ffns.0.layers.1.", "linear2."),
    ("ffns.0.layers.0.1.", "activation."),
    ("ffns.0.activation.", "activation."),
    *((f"norms.{index}.", f"norm{index + 1}.") for index in range(3)),
]
DETREX: Table = (
    ("backbone.stem.conv1.norm.", f"{BODY}bn1."),
    ("backbone.stem.conv1.", f"{BODY}conv1."),
    *(
        (f"backbone.res{stage + 1}.#.{there}", f"{BODY}layer{stage}.#.{here}")
        for stage, (there, here) in product(
            range(1, 5),
            [
                ("shortcut.norm.", "downsample.1."),
                ("shortcut.", "downsample.0."),
                *((f"conv{index}.norm.", f"bn{index}.") for index in range(1, 4)),
                *((f"conv{index}.", f"conv{index}.") for index in range(1, 4)),
            ],
        )
    ),
    ("backbone.body.", BODY),  # DC5 models
    *((f"backbone.{part}", f"{BODY}{part}") for part in ("patch_embed.", "layers.", "norm")),  # Swin Transformer
    ("anchor_box_embed.", "refpoint_embed."),
    ("denoising_generator.label_encoder.", "label_enc."),
    ("transformer.decoder.post_norm_layer.", "transformer.decoder.norm."),
    *_under((ENCODER_LAYER,) * 2, [("attentions.0.attn.", "self_attn."), *DETREX_FEEDFORWARD]),
    *_under(
        (DECODER_LAYER,) * 2,
        [
            ("attentions.0.attn.", "self_attn."),
            ("attentions.1.attn.", "multihead_attn."),
            ("attentions.0.out_proj.", "self_attn.out_proj."),
            ("attentions.1.out_proj.", "cross_attn.out_proj."),
            *DETREX_PROJECTIONS,
            *DETREX_FEEDFORWARD,
        ],
    ),
)

# transformers keeps DAB-DETR's projections inside the attention, named once more after it
DAB_PROJECTIONS = [
    *(
        (f"{block}.{block}_{longer}_{part}_proj.", f"{prefix}_{shorter}{part}_proj.")
        for (block, prefix), (longer, shorter), part in product(
            (("self_attn", "sa"), ("cross_attn", "ca")),
            (("query", "q"), ("key", "k")),
            ("content", "pos_sine", "pos"),
        )
    ),
    ("self_attn.self_attn_value_proj.", "sa_v_proj."),
    ("cross_attn.cross_attn_value_proj.", "ca_v_proj."),
]
# names that Conditional DETR's modules have in memory since transformers 5; on disk they are the authors'
CONDITIONAL_PROJECTIONS = [
    *(
        (f"{block}.{letter}_{part}_proj.", f"{prefix}_{letter}{part}_proj.")
        for (block, prefix), letter, part in product(
            (("self_attn", "sa"), ("encoder_attn", "ca")), "qk", ("content", "pos_sine", "pos")
        )
    ),
    ("self_attn.v_proj.", "sa_v_proj."),
    ("encoder_attn.v_proj.", "ca_v_proj."),
]
TRANSFORMERS_FEEDFORWARD = [
    (f"{module}{there}.", f"{here}.")
    for module in ("", "mlp.")
    for there, here in (("fc1", "linear1"), ("fc2", "linear2"), ("activation_fn", "activation"))
]


def _transformers_backbone(prefix: str) -> Table:
    stages = [
        ("shortcut.convolution.", "downsample.0."),
        ("shortcut.normalization.", "downsample.1."),
        *((f"layer.{index}.convolution.", f"conv{index + 1}.") for index in range(3)),
        *((f"layer.{index}.normalization.", f"bn{index + 1}.") for index in range(3)),
    ]
    return (
        (f"{prefix}embedder.embedder.convolution.", f"{BODY}conv1."),
        (f"{prefix}embedder.embedder.normalization.", f"{BODY}bn1."),
        *(
            (f"{prefix}encoder.stages.{stage}.layers.#.{there}", f"{BODY}layer{stage + 1}.#.{here}")
            for stage, (there, here) in product(range(4), stages)
        ),
        (f"{prefix}_backbone.", BODY),  # timm, inside DAB-DETR
        (prefix, BODY),  # timm
    )


TRANSFORMERS: Table = (
    *_transformers_backbone("model.backbone.conv_encoder.model."),
    *_transformers_backbone("model.backbone.model."),  # in memory since transformers 5
    ("model.input_projection.", "input_proj."),
    ("model.query_position_embeddings.", "query_embed."),
    ("model.query_refpoint_embeddings.", "refpoint_embed."),
    ("model.patterns.", "transformer.patterns."),
    ("class_labels_classifier.", "class_embed."),
    ("bbox_predictor.", "bbox_embed."),
    ("model.decoder.layernorm.", "transformer.decoder.norm."),
    *_under(
        ("model.encoder.layers.#.", ENCODER_LAYER),
        [
            ("self_attn.o_proj.", "self_attn.out_proj."),
            ("self_attn_layer_norm.", "norm1."),
            ("final_layer_norm.", "norm2."),
            *TRANSFORMERS_FEEDFORWARD,
        ],
    ),
    *_under(
        ("model.decoder.layers.#.", DECODER_LAYER),
        [
            *DAB_PROJECTIONS,
            ("self_attn.self_attn.output_proj.", "self_attn.out_proj."),
            ("cross_attn.cross_attn.output_proj.", "cross_attn.out_proj."),
            ("self_attn.self_attn_layer_norm.", "norm1."),
            ("cross_attn.cross_attn_layer_norm.", "norm2."),
            ("mlp.final_layer_norm.", "norm3."),
            ("self_attn_layer_norm.", "norm1."),
            ("encoder_attn_layer_norm.", "norm2."),
            ("final_layer_norm.", "norm3."),
            *TRANSFORMERS_FEEDFORWARD,
            ("self_attn.o_proj.", "self_attn.out_proj."),
            ("encoder_attn.o_proj.", "multihead_attn.out_proj."),
            ("encoder_attn.", "multihead_attn."),
        ],
    ),
    ("model.encoder.", "transformer.encoder."),
    ("model.decoder.", "transformer.decoder."),
)
# what Conditional DETR calls otherwise than DETR does
TRANSFORMERS_CONDITIONAL: Table = (
    *_under(
        ("model.decoder.layers.#.", DECODER_LAYER),
        [
            *CONDITIONAL_PROJECTIONS,
            ("encoder_attn.o_proj.", "cross_attn.out_proj."),
            ("encoder_attn.", "cross_attn."),
        ],
    ),
    *TRANSFORMERS,
)


def to_authors(state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], Layout]:
    """The state dict in the authors' layout, and the layout that it came in; told from the keys alone.

    Leaves out what holds no weight: aliases, counters, indices and the mask heads of panoptic models. A Swin
    Transformer's missing normalisations are filled with ones and zeros, as in the published refiner's training.
    """
    state = plain(state)
    layout = layout_of(state)
    renamed = rename(state, table_of(state, layout))
    for alias in [key for key in renamed if key.startswith(ALIAS)]:
        tensor = renamed.pop(alias)
        renamed.setdefault(alias.removeprefix("transformer.decoder."), tensor)
    weights = {key: tensor for key, tensor in renamed.items() if not key.endswith(WEIGHTLESS)}
    return complete_norms(fused(weights)), layout


def plain(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Without what wraps a whole model: ``module.`` of distributed training, ``detr.`` of panoptic models."""
    for wrapper in ("module.", "detr."):
        inside = {key.removeprefix(wrapper): tensor for key, tensor in state.items() if key.startswith(wrapper)}
        state = inside or state
    return dict(state)


def layout_of(state: Mapping[str, Tensor]) -> Layout:
    """The layout, told from the backbone's keys; ``authors`` where there is no backbone that is known."""
    beginnings: dict[str, Layout] = {"backbone.0.": "authors", "model.": "transformers", "backbone.": "detrex"}
    for beginning, layout in beginnings.items():
        if any(key.startswith(beginning) for key in state):
            return layout
    return "authors"


def table_of(state: Mapping[str, Tensor], layout: Layout) -> Table:
    """The renames of a layout."""
    if layout == "transformers":
        conditional = any("ca_qcontent_proj" in key or "q_content_proj" in key for key in state)
        return TRANSFORMERS_CONDITIONAL if conditional else TRANSFORMERS
    return DETREX if layout == "detrex" else ()


def rename(state: Mapping[str, Tensor], table: Table) -> dict[str, Tensor]:
    """The same tensors with every key's beginning replaced by the first row of ``table`` that fits it."""
    rules = [(re.compile(re.escape(there).replace(r"\#", r"(\d+)")), _template(here)) for there, here in table]

    def renamed(key: str) -> str:
        for pattern, template in rules:
            if found := pattern.match(key):
                return found.expand(template) + key[found.end() :]
        return key

    return {renamed(key): tensor for key, tensor in state.items()}


def _template(here: str) -> str:
    first, *others = here.split("#")
    return first + "".join(rf"\g<{number}>{part}" for number, part in enumerate(others, start=1))


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
    if "refpoint_embed.weight" in state:
        return "dn_detr" if "label_enc.weight" in state else "dab_detr"
    if any(key.startswith("transformer.decoder.ref_point_head.") for key in state):
        return "conditional_detr"
    return "detr" if "query_embed.weight" in state else None
