"""What the authors' own code computed with the refiners that they published."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from refinebox.refinement.refiner import Refiner
from refinebox.refinement.refiner_file import load_refiner

PUBLISHED = ["rb_dab_detr_r50_12ep", "rb_dab_detr_swin_t_in1k_12ep", "rb_detr_r50_12ep"]


def reference(shared: Path, name: str) -> tuple[dict[str, Any], list[Tensor], Refiner]:
    """The recorded outputs, the feature maps they were computed from, and the published refiner."""
    recorded = torch.load(shared / f"fixtures/refinebox/{name}.pt", weights_only=True)
    features = []
    for level, factors in recorded["features_factors"].items():
        feature = torch.einsum("ck,bkhw->bchw", factors["A"].float(), factors["B"].float())
        feature = feature.clamp(min=0) if recorded["features_relu"] else feature
        features.append(feature * recorded["features_scale"][level])
    return recorded, features, load_refiner(shared / f"data/refinebox-official/{name}.pth")
