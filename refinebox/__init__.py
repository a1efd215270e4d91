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

from refinebox import moved

if TYPE_CHECKING:
    from refinebox.detection.detector import Detector
    from refinebox.detection.output import Detections, DetectorOutput
    from refinebox.detection.zoo import load_detector
    from refinebox.refinement.refined_detector import RefinedDetector
    from refinebox.refinement.refiner import Refiner
    from refinebox.refinement.refiner_file import load_refiner
    from refinebox.refinement.upgraded import load

try:
    __version__ = version("refinebox")
except PackageNotFoundError:  # a checkout that is not installed
    __version__ = "0+checkout"

moved.watch()

# torch takes seconds to import, so each name is fetched when it is first used
_HOMES = {
    "Detections": "refinebox.detection.output",
    "Detector": "refinebox.detection.detector",
    "DetectorOutput": "refinebox.detection.output",
    "RefinedDetector": "refinebox.refinement.refined_detector",
    "Refiner": "refinebox.refinement.refiner",
    "load": "refinebox.refinement.upgraded",
    "load_detector": "refinebox.detection.zoo",
    "load_refiner": "refinebox.refinement.refiner_file",
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
