"""The names that mmdetection 2 publishes deformable DETRs with, beside the authors'.

Co-DETR's authors published theirs with it and call the head ``query_head``, beside the auxiliary heads that training
needs. Their project in version 3's repository kept these names.
"""

from collections.abc import Mapping

from refinebox.adapters.layouts.mmdet import BACKBONE, NORMS, branches
from refinebox.adapters.layouts.names import DECODER_LAYER, ENCODER_LAYER, Table, further_levels, left_out, under
from torch import Tensor

TRAINING = ("aux_pos_trans", "pos_feats_trans", "pos_feats_norm", "head_pos_embed")


def table(state: Mapping[str, Tensor]) -> Table:
    """The renames of a state dict in this layout."""
    collaborative = any(key.startswith("query_head.") for key in state)
    head = "query_head." if collaborative else "bbox_head."
    feedforward = [("ffns.0.layers.0.0.", "linear1."), ("ffns.0.layers.1.", "linear2.")]
    auxiliary = ("rpn_head.", "roi_head.", "bbox_head.") if collaborative else ()
    training = [f"{head}{name}." for name in ("downsample", "label_embedding", "dn_generator")]
    return (
        *left_out(*auxiliary, *training, *(f"{head}transformer.{name}" for name in TRAINING)),
        *further_levels(state, "gn"),
        *BACKBONE,
        *branches(head),
        (f"{head}query_embedding.", "query_embed."),
        (f"{head}transformer.level_embeds", "transformer.level_embed"),
        *under(
            (f"{head}transformer.encoder.layers.#.", ENCODER_LAYER),
            [("attentions.0.", "self_attn."), ("norms.0.", "norm1."), ("norms.1.", "norm2."), *feedforward],
        ),
        *under(
            (f"{head}transformer.decoder.layers.#.", DECODER_LAYER),
            [("attentions.0.attn.", "self_attn."), ("attentions.1.", "cross_attn."), *NORMS, *feedforward],
        ),
        (f"{head}transformer.decoder.ref_point_head.0.", "transformer.decoder.ref_point_head.layers.0."),
        (f"{head}transformer.decoder.ref_point_head.2.", "transformer.decoder.ref_point_head.layers.1."),
        (f"{head}transformer.", "transformer."),
    )
