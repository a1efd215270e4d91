"""The names of the deformable families' own authors, where a detector has others than the adapters read.

The adapters keep one class and box head more than decoder layers, for the encoder's tokens. DINO's authors store these
elsewhere, and their Swin Transformers stand one name higher than their ResNets.
"""

from collections.abc import Mapping

from refinebox.adapters.layouts.names import BODY, Table, left_out
from torch import Tensor


def table(state: Mapping[str, Tensor]) -> Table:
    """The renames of a state dict of DINO's or Deformable DETR's authors."""
    if "transformer.level_embed" not in state:
        return ()
    layers = {key.split(".")[3] for key in state if key.startswith("transformer.decoder.layers.")}
    return (
        *left_out("label_enc."),
        *((f"backbone.0.{part}", f"{BODY}{part}") for part in ("patch_embed.", "layers.", "norm")),
        ("transformer.enc_out_class_embed.", f"class_embed.{len(layers)}."),
        ("transformer.enc_out_bbox_embed.", f"bbox_embed.{len(layers)}."),
    )
