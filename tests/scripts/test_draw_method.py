"""The pictures of docs/concepts.md are drawn by the code as it is."""

from pathlib import Path
from types import ModuleType

import torch
from PIL import Image

from refinebox.data.annotations import CocoData
from refinebox.detection.zoo import load_detector
from refinebox.refinement.architecture import SPATIAL
from refinebox.refinement.quality import Quality
from refinebox.refinement.refiner import Refiner
from refinebox.training.run import write_refiner


def test_six_pictures_are_drawn(script: ModuleType, validation: CocoData, tmp_path: Path) -> None:
    detector = load_detector(script.DETECTOR)
    torch.manual_seed(0)
    refiner = Refiner(detector.channels, detector.strides, architecture=SPATIAL)
    torch.nn.init.normal_(refiner.bboxes_refiner.bboxes_deltas.weight, std=0.05)
    refiner.quality = Quality(refiner.steps, 6)
    write_refiner(tmp_path / "best.safetensors", refiner, detector, {}, {"before": None, "after": None})
    script.main(tmp_path / "best.safetensors", validation.folder.parent, tmp_path / "pictures")
    sizes = {}
    for path in (tmp_path / "pictures").iterdir():
        with Image.open(path) as picture:
            sizes[path.stem] = picture.size
    assert sorted(sizes) == ["1_frozen", "2_read", "3_steps", "4_losses", "5_quality", "6_oracle"]
    assert sizes["3_steps"][1] > 2 * script.TILE  # before and three steps, in two rows
    assert all(width > 2 * script.TILE for width, _ in sizes.values())
