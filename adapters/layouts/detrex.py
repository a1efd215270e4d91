"""The names that detrex publishes tensors with, beside the authors'."""

from collections.abc import Mapping
from itertools import product

from refinebox.adapters.layouts.names import BODY, DECODER_LAYER, ENCODER_LAYER, Table, further_levels, left_out, under
from torch import Tensor

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
BACKBONE: Table = (
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
)
DETREX: Table = (
    *BACKBONE,
    ("anchor_box_embed.", "refpoint_embed."),
    ("denoising_generator.label_encoder.", "label_enc."),
    ("transformer.decoder.post_norm_layer.", "transformer.decoder.norm."),
    *under((ENCODER_LAYER,) * 2, [("attentions.0.attn.", "self_attn."), *DETREX_FEEDFORWARD]),
    *under(
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
# the deformable families, whose authors number the decoder's normalisations otherwise
DEFORMABLE_FEEDFORWARD = [("ffns.0.layers.0.0.", "linear1."), ("ffns.0.layers.1.", "linear2.")]
DEFORMABLE: Table = (
    *BACKBONE,
    *left_out("label_enc.", "transformer.decoder.class_embed."),
    ("neck.convs.#.conv.", "input_proj.#.0."),
    ("neck.convs.#.norm.", "input_proj.#.1."),
    ("query_embedding.", "query_embed."),
    ("transformer.level_embeds", "transformer.level_embed"),
    *under(
        (ENCODER_LAYER,) * 2,
        [
            ("attentions.0.", "self_attn."),
            ("norms.0.", "norm1."),
            ("norms.1.", "norm2."),
            *DEFORMABLE_FEEDFORWARD,
        ],
    ),
    *under(
        (DECODER_LAYER,) * 2,
        [
            ("attentions.0.attn.", "self_attn."),
            ("attentions.1.", "cross_attn."),
            ("norms.0.", "norm2."),
            ("norms.1.", "norm1."),
            ("norms.2.", "norm3."),
            *DEFORMABLE_FEEDFORWARD,
        ],
    ),
)


def table(state: Mapping[str, Tensor]) -> Table:
    """The renames of a state dict in this layout."""
    if "transformer.level_embeds" not in state:
        return DETREX
    return further_levels(state, "norm") + DEFORMABLE
