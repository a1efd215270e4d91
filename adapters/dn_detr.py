"""DN-DETR (arXiv 2203.01305): DAB-DETR whose training also denoises boxes; at inference only the contents differ."""

from collections.abc import Mapping
from typing import Any

import torch
from refinebox.adapters.dab_detr import DabDetr
from refinebox.adapters.parts.network import frozen
from refinebox.adapters.parts.sizes import Sizes
from torch import Tensor, nn

from refinebox.detection.detector import Detector
from refinebox.detection.profile import Profile


class DnDetr(DabDetr):
    """DAB-DETR with label embeddings as contents (section 4.5); arguments as there."""

    def __init__(self, sizes: Sizes, **options: Any) -> None:
        super().__init__(sizes, **options)
        # one row more than categories, for "unknown"; one channel less, for the indicator
        self.label_enc = nn.Embedding(sizes.columns + 1, sizes.width - 1)

    def queries(self, batch: int) -> tuple[Tensor, Tensor]:
        contents, anchors = super().queries(batch)
        unknown = self.label_enc.weight[-1]  # [C - 1]
        # the indicator is 0 for queries that match and 1 for those that denoise, of which inference has none
        return contents + torch.cat([unknown, unknown.new_zeros(1)]), anchors


def build(state: Mapping[str, Tensor], profile: Profile) -> Detector:
    """The frozen detector for a state dict in the authors' layout; errors are those of ``frozen``."""
    return frozen(DnDetr, state, profile)
