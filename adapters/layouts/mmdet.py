"""What versions 2 and 3 of mmdetection name alike: backbone, neck, heads."""

from refinebox.adapters.layouts.names import BODY, Table, under
from torch import Tensor

BACKBONE: Table = (
    *under(
        ("backbone.stages.#.blocks.#.", f"{BODY}layers.#.blocks.#."),
        [("attn.w_msa.", "attn."), ("ffn.layers.0.0.", "mlp.fc1."), ("ffn.layers.1.", "mlp.fc2.")],
    ),
    ("backbone.stages.", f"{BODY}layers."),
    ("backbone.patch_embed.projection.", f"{BODY}patch_embed.proj."),
    ("backbone.", BODY),
    ("neck.convs.#.conv.", "input_proj.#.0."),
    ("neck.convs.#.gn.", "input_proj.#.1."),
)
NORMS = [("norms.0.", "norm2."), ("norms.1.", "norm1."), ("norms.2.", "norm3.")]  # of the decoder


def branches(head: str) -> Table:
    """Rows of the class and box heads under ``head``."""
    layers = tuple((f"{head}reg_branches.#.{2 * index}.", f"bbox_embed.#.layers.{index}.") for index in range(3))
    return ((f"{head}cls_branches.", "class_embed."), *layers)


def merged_as_the_authors(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """A Swin Transformer's patch merging as its authors order its inputs.

    mmdetection takes them channel by channel, each with its four cells row by row; the authors cell by cell, column by
    column.
    """
    for key, tensor in state.items():
        if ".downsample.norm." in key or ".downsample.reduction." in key:
            cells = tensor.view(*tensor.shape[:-1], -1, 4)[..., [0, 2, 1, 3]]  # [..., C, 4]
            state[key] = cells.transpose(-1, -2).flatten(-2)
    return state
