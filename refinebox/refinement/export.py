"""A detector, upgraded or not, as an ONNX file that is proved to give what torch gives before it is written."""

import json
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import asdict, dataclass
from io import StringIO
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim
from torch.nn import functional as F

import refinebox
from refinebox.boxes import to_pixels
from refinebox.detection.detector import Detector
from refinebox.detection.extras import library
from refinebox.detection.zoo import describe
from refinebox.files import checkpoint
from refinebox.refinement.exported import KIND, METADATA_KEY, ExportedDetector, open_session
from refinebox.refinement.refined_detector import RefinedDetector

OPSET = 18  # RoIAlign is aligned as torch's from 16 on, and layer normalisation one operator from 17 on
BATCHES = (1, 3)
MOST_PIXELS, MOST_SCORE = 0.1, 1e-4  # differences that may be rounding


@dataclass(frozen=True)
class Proof:
    """How far a file's outputs in onnxruntime are from torch's, over every query of every image that was tried.

    Attributes:
        boxes: the largest difference of a coordinate, in pixels of the detector's input.
        scores: of a score.
        batches: batch sizes that were tried,
        sizes: each with these (height, width), in pixels.
    """

    boxes: float
    scores: float
    batches: tuple[int, ...]
    sizes: tuple[tuple[int, int], ...]


class Graph(nn.Module):
    """What is exported: images and their unpadded sizes in, detections and all queries out."""

    def __init__(self, detector: Detector) -> None:
        super().__init__()
        self.detector = detector
        self.register_buffer("ids", torch.tensor(detector.category_ids))
        self.train(False)

    def forward(self, images: Tensor, sizes: Tensor) -> dict[str, Tensor]:
        """Tensors by the names of the file's outputs.

        ``boxes`` ``[B, N, 4]`` xyxy in pixels of ``images``, ``scores`` ``[B, N]`` and ``labels`` ``[B, N]`` are the
        detector's own choice, best first. ``query_boxes`` ``[B, Q, 4]`` (cxcywh, fractions of the unpadded image) and
        ``query_scores`` ``[B, Q, K]`` are what it chose from, ``unrefined_...`` the same before the refiner.
        """
        detector, before = self.detector, None
        if isinstance(detector, RefinedDetector):
            before, after = detector.before_and_after(images, sizes)
        else:
            after = detector(images, sizes)
        scores = detector.scores_of(after)  # [B, Q, K]
        final, columns = detector.profile.final, scores.shape[-1]
        if final.rule == "queries":
            best, column = scores.max(-1)
            best, query = best.sort(dim=-1, descending=True)  # [B, Q]
            column = column.gather(1, query)
        else:
            best, index = scores.flatten(1).topk(min(final.limit, scores.shape[1] * columns))  # [B, N]
            query, column = index // columns, index % columns
        pixels = to_pixels(after.boxes, sizes).gather(1, query[..., None].expand(-1, -1, 4))
        outputs = {"boxes": pixels, "scores": best, "labels": self.get_buffer("ids")[column]}
        outputs |= {"query_boxes": after.boxes, "query_scores": scores}
        if before is not None:
            outputs |= {"unrefined_boxes": before.boxes, "unrefined_scores": detector.scores_of(before)}
        return outputs


def export(detector: Detector, output: Path, source: dict[str, Any] | None = None) -> Proof:
    """Writes the ONNX file, which carries its proof, and returns this.

    Args:
        detector: any, upgraded or plain, on the CPU.
        output: the file; what stood there is replaced once the new one is proved.
        source: name and SHA-256 of the file that the detector was read from.

    Raises:
        ValueError: the detector cannot be exported, the extra is missing, or the outputs differ by more than 0.1 pixels
            or 1e-4 of a score; nothing is written.
    """
    reason = obstacle(detector)
    if reason:
        raise ValueError(f"{detector.profile.name} cannot be exported: {reason}")
    for module in ("onnx", "onnxscript", "onnxruntime"):
        library(module, "onnx")
    model = traced(detector)
    proof = prove(model.SerializeToString(), detector)
    base = detector.detector if isinstance(detector, RefinedDetector) else detector
    metadata = {
        "kind": KIND,
        "version": refinebox.__version__,
        "detector": describe(detector),
        "sha256": base.weights_sha256(),
        "source": source,
        "upgraded": isinstance(detector, RefinedDetector),
        "clips": isinstance(detector, RefinedDetector) and detector.clips,
        "proof": asdict(proof),
    }
    model.metadata_props.add(key=METADATA_KEY, value=json.dumps(metadata))
    checkpoint.remove_leftovers(output)
    checkpoint.write_bytes(output, model.SerializeToString())
    return proof


def obstacle(detector: Detector) -> str | None:
    """Why a detector cannot be exported, where that is known without trying."""
    base = detector.detector if isinstance(detector, RefinedDetector) else detector
    kind = type(base)
    if isinstance(base, ExportedDetector):
        return "it comes from an exported file; name the checkpoint that this was made from"
    if base.takes_boxes:
        return "it takes its boxes from a results file; refinebox refine runs it"
    if base.takes_text:
        return "it is told in words what to look for, which fixes the number of images in a batch"
    if base.profile.final.rule == "suppression":
        return "it ends in suppression, which keeps another number of boxes in every image"
    if kind.select is not Detector.select:
        return "it chooses its detections in code of its own"
    if kind.preprocess is not Detector.preprocess:
        return "it prepares images in code of its own"
    if kind.finish is not Detector.finish and base.profile.layout.startswith("mmdet"):
        return "it cuts its boxes in code of its own"
    if kind.detect_given is not Detector.detect_given:
        return "it takes boxes from elsewhere"
    return None


def traced(detector: Detector) -> Any:
    """The ONNX model; batch and, where the detector takes images of any size, height and width are free.

    Raises:
        ValueError: an operation has no counterpart, or fixes a size.
    """
    form = detector.profile.input
    [height, width], *_ = sizes_of(detector)
    images, sizes = batch_of(3, height, width)  # not one, which would be taken for a constant
    free = {0: Dim.DYNAMIC} if form.fixed else {0: Dim.DYNAMIC, 2: Dim.DYNAMIC, 3: Dim.DYNAMIC}
    shapes = (free, {0: Dim.DYNAMIC})
    graph = Graph(detector)
    with quiet(), torch.no_grad():
        names = list(graph(images, sizes))
        try:
            program = torch.export.export(graph, (images, sizes), dynamic_shapes=shapes, strict=False)
            exported = torch.onnx.export(
                program, opset_version=OPSET, input_names=["images", "sizes"], output_names=names, verbose=False
            )
        except Exception as error:  # whatever an exporter raises is the detector's obstacle
            raise ValueError(f"{detector.profile.name} cannot be exported: {in_a_line(error)}") from error
    assert exported is not None
    return exported.model_proto


def in_a_line(error: Exception) -> str:
    """What an exporter, which writes pages, found."""
    text = str(error).strip()
    if "data-dependent" in text:
        return "a shape in it depends on what is in the image, as after a suppression"
    return f"torch says {text.partition(chr(10))[0].partition(' For more information')[0]}"


def prove(model: bytes, detector: Detector) -> Proof:
    """Runs the model beside the detector.

    Raises:
        ValueError: onnxruntime cannot run the model, or the outputs differ by more than rounding does.
    """
    try:
        session = open_session(model)
    except RuntimeError as error:
        raise ValueError(f"{detector.profile.name} cannot be exported: onnxruntime says {error}") from error
    graph = Graph(detector)
    boxes = scores = 0.0
    sizes = sizes_of(detector)
    for count in BATCHES:
        for height, width in sizes:
            images, inside = batch_of(count, height, width)
            with torch.no_grad():
                wanted = graph(images, inside)
            names = ["query_boxes", "query_scores", "scores"]
            found = session.run(names, {"images": images.numpy(), "sizes": inside.numpy()})
            mine, theirs, best = (torch.from_numpy(array) for array in found)
            moved = to_pixels(mine, inside) - to_pixels(wanted["query_boxes"], inside)
            boxes = max(boxes, moved.abs().max().item())
            scores = max(
                scores,
                *(
                    (one - other).abs().max().item()
                    for one, other in ((theirs, wanted["query_scores"]), (best, wanted["scores"]))
                ),
            )
    if not (boxes <= MOST_PIXELS and scores <= MOST_SCORE):  # which NaN is not
        raise ValueError(
            f"the exported {detector.profile.name} differs from torch by up to {boxes:.3g} pixels and {scores:.3g} of "
            f"a score, expected at most {MOST_PIXELS:g} and {MOST_SCORE:g}; nothing is written: please report it"
        )
    return Proof(boxes, scores, BATCHES, sizes)


def sizes_of(detector: Detector) -> tuple[tuple[int, int], ...]:
    """(height, width) of the batches that a proof tries: the detector's own size, and an odd one below it."""
    form = detector.profile.input
    height, width = form.canvas(*form.content(480, 640))
    if form.fixed:
        return ((height, width),)
    return (height, width), form.canvas(int(width * 0.7) | 1, int(height * 0.8) | 1)


def batch_of(count: int, height: int, width: int) -> tuple[Tensor, Tensor]:
    """Smooth normalised pictures ``[count, 3, H, W]``, each smaller than the one before and padded, and their sizes."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.randn(count, 3, 9, 12, generator=generator)
    images = F.interpolate(coarse, size=(height, width), mode="bicubic")
    sizes = torch.tensor([[height - place * height // 8, width - place * width // 10] for place in range(count)])
    for image, (inside, across) in zip(images, sizes.tolist(), strict=True):
        image[:, inside:] = 0
        image[:, :, across:] = 0
    return images, sizes


@contextmanager
def quiet() -> Iterator[None]:
    """Without the exporters' remarks, which are for those who write them."""
    level = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), redirect_stdout(StringIO()), redirect_stderr(StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)
