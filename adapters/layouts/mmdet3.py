"""The names that mmdetection 3 publishes deformable DETRs with, beside the authors'."""

from collections.abc import Mapping

from refinebox.adapters.layouts import mmdet2
from refinebox.adapters.layouts.mmdet import BACKBONE, NORMS, branches
from refinebox.adapters.layouts.names import DECODER_LAYER, ENCODER_LAYER, Table, further_levels, left_out, under
from torch import Tensor


def table(state: Mapping[str, Tensor]) -> Table:
    """The renames of a state dict in this layout."""
    if any(key.startswith("query_head.") for key in state):
        return mmdet2.table(state)
    dino = any(key.startswith("decoder.ref_point_head.") for key in state)
    layers = {key.split(".")[2] for key in state if key.startswith("decoder.layers.")}
    # DDQ trains one more branch, on the dense queries
    dense = [f"bbox_head.{name}_branches.{len(layers) + 1}." for name in ("cls", "reg")]
    feedforward = [("ffn.layers.0.0.", "linear1."), ("ffn.layers.1.", "linear2.")]
    return (
        *left_out("dn_query_generator.", "bbox_head.aux_", *dense),
        *further_levels(state, "gn"),
        *BACKBONE,
        *branches("bbox_head."),
        ("level_embed", "transformer.level_embed"),
        *under(("encoder.layers.#.", ENCODER_LAYER), [("norms.0.", "norm1."), ("norms.1.", "norm2."), *feedforward]),
        *under(("decoder.layers.#.", DECODER_LAYER), [("self_attn.attn.", "self_attn."), *NORMS, *feedforward]),
        ("encoder.", "transformer.encoder."),
        ("decoder.", "transformer.decoder."),
        ("memory_trans_fc.", "transformer.enc_output."),
        ("memory_trans_norm.", "transformer.enc_output_norm."),
        ("pos_trans_fc.", "transformer.pos_trans."),
        ("pos_trans_norm.", "transformer.pos_trans_norm."),
        ("reference_points_fc.", "transformer.reference_points."),
        ("query_embedding.", "transformer.tgt_embed." if dino else "query_embed."),
    )
