"""The names that transformers writes tensors with, beside the authors'."""

from collections.abc import Mapping
from itertools import product

from refinebox.adapters.layouts.names import BODY, DECODER_LAYER, ENCODER_LAYER, Table, under
from torch import Tensor

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
    ("model.encoder.layernorm.", "transformer.encoder.norm."),
    ("model.decoder.layernorm.", "transformer.decoder.norm."),
    *under(
        ("model.encoder.layers.#.", ENCODER_LAYER),
        [
            ("self_attn.o_proj.", "self_attn.out_proj."),
            ("self_attn_layer_norm.", "norm1."),
            ("final_layer_norm.", "norm2."),
            *TRANSFORMERS_FEEDFORWARD,
        ],
    ),
    *under(
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
    *under(
        ("model.decoder.layers.#.", DECODER_LAYER),
        [
            *CONDITIONAL_PROJECTIONS,
            ("encoder_attn.o_proj.", "cross_attn.out_proj."),
            ("encoder_attn.", "cross_attn."),
        ],
    ),
    *TRANSFORMERS,
)
# what Deformable DETR calls otherwise: its decoder's normalisations are numbered by the authors in another order
TRANSFORMERS_DEFORMABLE: Table = (
    ("model.reference_points.", "transformer.reference_points."),
    ("model.input_proj.", "input_proj."),
    *((f"model.{name}", f"transformer.{name}") for name in ("level_embed", "enc_output", "pos_trans")),
    *under(
        ("model.decoder.layers.#.", DECODER_LAYER),
        [
            ("encoder_attn_layer_norm.", "norm1."),
            ("encoder_attn.", "cross_attn."),
            ("self_attn_layer_norm.", "norm2."),
        ],
    ),
    *TRANSFORMERS,
)


def table(state: Mapping[str, Tensor]) -> Table:
    """The renames of a state dict in this layout."""
    if "model.level_embed" in state:
        return TRANSFORMERS_DEFORMABLE
    conditional = any("ca_qcontent_proj" in key or "q_content_proj" in key for key in state)
    return TRANSFORMERS_CONDITIONAL if conditional else TRANSFORMERS


def with_every_head(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Adds, in the authors' names, the heads of Deformable DETR that are stored once because layers share them."""
    if "transformer.level_embed" in state:
        layers = {key.split(".")[3] for key in state if key.startswith("transformer.decoder.layers.")}
        first = {key: tensor for key, tensor in state.items() if key.startswith(("class_embed.0.", "bbox_embed.0."))}
        for key, layer in product(first, layers):
            state.setdefault(key.replace(".0.", f".{layer}.", 1), first[key])
    return state
