"""The frozen detectors beside transformers' implementations of the same models with the same weights."""

import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
import transformers
from side_by_side import side_by_side
from torch import Tensor
from transformers import PreTrainedModel

from refinebox.detection.detector import Detector
from refinebox.detection.zoo import load_detector

FAMILIES = {
    "detr-r50": "Detr",
    "conditional-detr-r50": "ConditionalDetr",
    "dab-detr-r50": "DabDetr",
    "deformable-detr-r50": "DeformableDetr",
}
HEIGHT, WIDTH = 800, 1066


def measure(quick: bool = False) -> dict[str, float]:
    """Our seconds over transformers', medians, for each family and batch size: ``detr-r50 at batch 1``, and so on."""
    transformers.logging.set_verbosity_error()
    ratios = {}
    for name, prefix in FAMILIES.items():
        theirs, ours = pair(name, prefix)
        for batch in (1,) if quick else (1, 4):
            seconds = side_by_side(runs(theirs, ours, batch), repeats=3 if quick else 7)
            ratios[f"{name} at batch {batch}"] = seconds[1] / seconds[0]
            print(
                f"{name}, batch {batch}: transformers {seconds[0]:.2f} s, refinebox {seconds[1]:.2f} s, "
                f"ratio {seconds[1] / seconds[0]:.2f}",
                flush=True,
            )
    return ratios


def pair(name: str, prefix: str) -> tuple[PreTrainedModel, Detector]:
    """transformers' untrained R50 model, and ours with its weights."""
    torch.manual_seed(0)
    stages = ["stage2", "stage3", "stage4"] if prefix == "DeformableDetr" else ["stage4"]
    config = getattr(transformers, f"{prefix}Config")(
        backbone_config=transformers.ResNetConfig(out_features=stages),
        use_timm_backbone=False,
        use_pretrained_backbone=False,
        backbone=None,
    )
    theirs: PreTrainedModel = getattr(transformers, f"{prefix}ForObjectDetection")(config).eval()
    with tempfile.TemporaryDirectory() as folder:
        theirs.save_pretrained(folder)
        return theirs, load_detector(name, Path(folder))


def runs(theirs: PreTrainedModel, ours: Detector, batch: int) -> list[Callable[[], object]]:
    images = torch.randn(batch, 3, HEIGHT, WIDTH)
    mask, sizes = torch.ones(batch, HEIGHT, WIDTH, dtype=torch.long), torch.tensor([[HEIGHT, WIDTH]] * batch)

    @torch.no_grad()
    def run_theirs() -> Tensor:
        boxes: Tensor = theirs(pixel_values=images, pixel_mask=mask).pred_boxes
        return boxes

    difference = (run_theirs() - ours(images, sizes).boxes).abs().median().item()
    if difference > 1e-4:
        raise ValueError(f"the two differ by {difference:.2g} in the median box coordinate; the comparison is void")
    return [run_theirs, lambda: ours(images, sizes)]


if __name__ == "__main__":
    measure()
