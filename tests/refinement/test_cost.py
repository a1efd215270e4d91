"""What refinement costs, against sums by hand."""

from refinebox.detection.detector import Detector
from refinebox.refinement.architecture import PUBLISHED
from refinebox.refinement.cost import cost_of
from refinebox.refinement.refined_detector import RefinedDetector
from refinebox.refinement.refiner import Refiner


def head(boxes: int) -> int:
    """Multiply-adds of the published head for so many boxes: three blocks on 7 x 7 cells, then the MLP."""
    block = 49 * 64 * 64 * (1 + 9 + 1)
    return boxes * (3 * block + 2 * 64 * 64 + 64 * 4)


def pyramid(detector: Detector, cells: list[int]) -> int:
    """Of the lateral 1x1 and the output 3x3 convolution of each level."""
    return sum(count * 64 * (channels + 9 * 64) for count, channels in zip(cells, detector.channels, strict=True))


def test_the_sum_is_that_of_its_parts(detector: Detector) -> None:
    refiner = Refiner(detector.channels, detector.strides, steps=3, architecture=PUBLISHED)
    cost = cost_of(RefinedDetector(detector, refiner))
    assert cost.size == (64, 85)
    cells = [16 * 22, 8 * 11, 4 * 6, 4 * 6]  # the last stage is dilated
    assert cost.macs == pyramid(detector, cells) + 3 * head(12)
    assert cost.parameters == sum(parameter.numel() for parameter in refiner.parameters())
    assert cost.detector_parameters == sum(parameter.numel() for parameter in detector.parameters())


def test_a_larger_input_costs_the_pyramid_more(detector: Detector) -> None:
    model = RefinedDetector(detector, Refiner(detector.channels, detector.strides, architecture=PUBLISHED))
    small = cost_of(model)
    model.resize(128, 256)
    large = cost_of(model)
    assert 3.9 < (large.macs - 3 * head(12)) / (small.macs - 3 * head(12)) < 4.1
    assert large.detector_macs > 3 * small.detector_macs


def test_it_is_told_in_words(detector: Detector) -> None:
    cost = cost_of(RefinedDetector(detector, Refiner(detector.channels, detector.strides)))
    assert cost.told().startswith("refinement adds 0.")
    assert cost.told().endswith(" of the detector's at 85 x 64")
