"""Better boxes from a detector that stays as it is.

>>> import refinebox
>>> detector = refinebox.load_detector("dab-detr-shapes")
>>> refiner = refinebox.load_refiner("best.safetensors")
>>> model = refinebox.RefinedDetector(detector, refiner)
>>> model.predict(["photo.jpg"])
"""

from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from refinebox.detection.detector import Detections, Detector, DetectorOutput
    from refinebox.detection.zoo import load_detector
    from refinebox.refinement.refiner import RefinedDetector, Refiner, load_refiner
    from refinebox.refinement.upgraded import load

try:
    __version__ = version("refinebox")
except PackageNotFoundError:  # a checkout that is not installed
    __version__ = "0+checkout"

# torch takes seconds to import, so each name is fetched when it is first used
_HOMES = {
    "Detections": "refinebox.detection.detector",
    "Detector": "refinebox.detection.detector",
    "DetectorOutput": "refinebox.detection.detector",
    "RefinedDetector": "refinebox.refinement.refiner",
    "Refiner": "refinebox.refinement.refiner",
    "load": "refinebox.refinement.upgraded",
    "load_detector": "refinebox.detection.zoo",
    "load_refiner": "refinebox.refinement.refiner",
}
__all__ = [
    "Detections",
    "Detector",
    "DetectorOutput",
    "RefinedDetector",
    "Refiner",
    "load",
    "load_detector",
    "load_refiner",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'refinebox' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
