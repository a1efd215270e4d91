"""What every adapter keeps, as a class to inherit from."""

from pathlib import Path
from typing import ClassVar

import torch

from refinebox.detection.detector import Detector
from refinebox.detection.testing import check_detector
from refinebox.detection.zoo import describe
from refinebox.files import checkpoint
from refinebox.refinement.refined_detector import RefinedDetector
from refinebox.refinement.refiner import Refiner
from refinebox.refinement.upgraded import apply, load


class AdapterContract:
    """Derive a test class, give it a fixture ``detector`` and say which strides it has.

    Attributes:
        strides: of the feature maps.
        height, width: about the size of the images to run on, in pixels.
    """

    strides: ClassVar[tuple[int, ...]] = (4, 8, 16, 32)
    height: ClassVar[int] = 128
    width: ClassVar[int] = 160

    def test_the_contract_is_kept(self, detector: Detector) -> None:
        check_detector(detector, height=self.height, width=self.width)

    def test_the_strides(self, detector: Detector) -> None:
        assert detector.strides == self.strides

    def test_an_upgraded_file_holds_the_whole_detector(self, detector: Detector, tmp_path: Path) -> None:
        torch.manual_seed(0)
        refiner, path = Refiner(detector.channels, detector.strides), tmp_path / "better.safetensors"
        sides = {"strides": detector.strides, "steps": refiner.steps}
        checkpoint.write(tmp_path / "refiner.safetensors", refiner.state_dict(), {"kind": "refiner", **sides})
        apply(detector, None, tmp_path / "refiner.safetensors", path)
        refined, again = RefinedDetector(detector, refiner), load(path)
        assert isinstance(again, RefinedDetector)
        assert describe(again.detector) == describe(detector)
        height, width = detector.profile.input.canvas(self.height, self.width)
        images, sizes = torch.rand(1, 3, height, width), torch.tensor([[height, width]])
        outputs = (model.before_and_after(images, sizes) for model in (refined, again))
        for one, other in zip(*outputs, strict=True):
            # sums may be taken in another order, depending on where in memory the weights lie
            torch.testing.assert_close(one.boxes, other.boxes, atol=1e-5, rtol=1e-5)
            torch.testing.assert_close(one.logits, other.logits, atol=1e-5, rtol=1e-5)
