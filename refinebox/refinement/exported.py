"""An ONNX file that ``refinebox export`` wrote, run by onnxruntime as a detector."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.ops import clip_boxes_to_image

from refinebox.data.proposals import Proposals
from refinebox.detection.detector import Detector
from refinebox.detection.extras import library
from refinebox.detection.output import Detections, DetectorOutput
from refinebox.detection.zoo import profile_from

KIND = "exported detector"  # whole; parts have other kinds, refinement/exportable.py
METADATA_KEY = "refinebox"
LEAST = (1, 18)  # of onnxruntime, which reads files of the form that torch writes


class ExportedDetector(Detector):
    """A detector in an ONNX file. It gives boxes and scores and no feature maps, so nothing can be trained on it.

    Args:
        session: of onnxruntime, with the file.
        metadata: what refinebox wrote into it.
        where: names the file in messages.
    """

    memory_format = torch.contiguous_format

    def __init__(self, session: Any, metadata: dict[str, Any], where: str) -> None:
        profile = profile_from(metadata.get("detector", {}), where)
        super().__init__(replace(profile, choice=profile.final, classification="probability"))
        self.session, self.metadata = session, metadata
        self.place = nn.Parameter(torch.zeros(()), requires_grad=False)  # where tensors are wanted
        self.train(False)

    def detect(self, images: Tensor, sizes: Tensor) -> DetectorOutput:
        return self.outputs(images, sizes, "query")[0]

    def outputs(self, images: Tensor, sizes: Tensor, *kinds: str) -> list[DetectorOutput]:
        """The outputs ``<kind>_boxes`` and ``<kind>_scores`` of each kind, from one run."""
        names = [f"{kind}_{part}" for kind in kinds for part in ("boxes", "scores")]
        given = {"images": images.contiguous().cpu().numpy(), "sizes": sizes.long().cpu().numpy()}
        found = [torch.from_numpy(array).to(images.device) for array in self.session.run(names, given)]
        return [DetectorOutput((), boxes, scores) for boxes, scores in zip(found[::2], found[1::2], strict=True)]

    def finish(self, detections: Detections, size: tuple[int, int]) -> Detections:
        """As the exported detector's own code does; see :meth:`Detector.finish`."""
        finished = super().finish(detections, size)
        if not self.metadata.get("trims"):
            return finished
        return replace(finished, boxes=clip_boxes_to_image(finished.boxes, size))

    def weights_sha256(self) -> str:
        """Of the detector that was exported."""
        return str(self.metadata["sha256"])


class ExportedUpgraded(ExportedDetector):
    """An exported upgraded detector, which also says where the boxes were before the refiner."""

    @property
    def clips(self) -> bool:
        """Whether boxes are cut at the borders of the image in the end."""
        return bool(self.metadata["clips"])

    @torch.no_grad()
    def before_and_after(
        self, images: Tensor, sizes: Tensor, proposals: Proposals | None = None
    ) -> tuple[DetectorOutput, DetectorOutput]:
        """The frozen detector's output and the refined one, from one run; queries keep their places."""
        before, after = self.outputs(self.padded(images), sizes, "unrefined", "query")
        return before, after


def open_exported(path: Path) -> ExportedDetector:
    """The detector in an ONNX file.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: onnxruntime is missing or old, or refinebox did not write the file, or it is damaged or a part.
    """
    session, metadata = read_exported(path)
    if metadata["kind"] != KIND:
        raise ValueError(
            f"{path} holds {metadata['kind']}, which finds nothing alone; name a detector that was exported whole"
        )
    return as_detector(session, metadata, str(path))


def read_exported(path: Path) -> tuple[Any, dict[str, Any]]:
    """The session and the metadata of an ONNX file that refinebox wrote, whole or a part; errors as above."""
    if not path.is_file():
        raise FileNotFoundError(f"no file at {path}; check the path")
    try:
        session = open_session(path.read_bytes())
    except RuntimeError as error:
        raise ValueError(f"{path} is damaged or no ONNX file; export it again") from error
    metadata = json.loads(session.get_modelmeta().custom_metadata_map.get(METADATA_KEY, "{}"))
    if not str(metadata.get("kind")).startswith("exported"):
        raise ValueError(f"{path} is not from refinebox; expected what refinebox export wrote")
    return session, metadata


def as_detector(session: Any, metadata: dict[str, Any], where: str) -> ExportedDetector:
    """The detector in a session; ``where`` names its file in messages."""
    kind = ExportedUpgraded if metadata["upgraded"] else ExportedDetector
    return kind(session, metadata, where)


def open_session(model: bytes) -> Any:
    """A session of onnxruntime, on the GPU where it can use one.

    Raises:
        ValueError: onnxruntime is missing or old.
        RuntimeError: it cannot read the model.
    """
    onnxruntime = runtime()
    there = onnxruntime.get_available_providers()
    wanted = [name for name in ("CUDAExecutionProvider", "CPUExecutionProvider") if name in there]
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors alone
    options.intra_op_num_threads = torch.get_num_threads()
    try:
        return onnxruntime.InferenceSession(model, options, providers=wanted)
    except Exception as error:  # of classes of its own, which share no base but this
        raise RuntimeError(str(error)) from error


def runtime() -> Any:
    """The module onnxruntime.

    Raises:
        ValueError: it is missing or old.
    """
    onnxruntime = library("onnxruntime", "onnx")
    version = onnxruntime.__version__
    if tuple(int(part) for part in version.split(".")[:2]) < LEAST:
        raise ValueError(
            f"onnxruntime {version} is too old; expected {'.'.join(map(str, LEAST))} or later: "
            "pip install --upgrade onnxruntime"
        )
    return onnxruntime
