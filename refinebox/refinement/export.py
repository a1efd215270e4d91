"""A detector, upgraded or not, or a part of it as a file that runs without refinebox, proved before it stands.

Two kinds are written: ONNX, and torch's own ``.pt2``, which torch loads without refinebox and compiles for C++.
"""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, Literal

import torch
from torch.export import ExportedProgram
from torch.utils import _pytree as pytree

import refinebox
from refinebox.detection.detector import Detector
from refinebox.detection.extras import library
from refinebox.detection.zoo import describe
from refinebox.files import checkpoint
from refinebox.refinement.exportable import PARTS, Part
from refinebox.refinement.exported import METADATA_KEY, as_detector, open_session, runtime
from refinebox.refinement.half import halved
from refinebox.refinement.obstacle import obstacle, trims
from refinebox.refinement.proof import HALF, WHOLE, Proof, Run, prove
from refinebox.refinement.refined_detector import RefinedDetector
from refinebox.refinement.tracing import quiet, refused, traced, without_checks

OPSET = 18  # layer normalisation is one operator from 17 on, without which half precision overflows
FORMATS = (".onnx", ".pt2")

PartName = Literal["whole", "refiner", "features"]
Judge = Callable[[Detector], dict[str, Any]]


@dataclass(frozen=True)
class Exported:
    """What is known of a file that was written.

    Attributes:
        proof: how far it is from torch.
        judged: what the judge found; empty without one.
    """

    proof: Proof
    judged: dict[str, Any]


def export(
    detector: Detector,
    output: Path,
    source: dict[str, Any] | None = None,
    *,
    part: PartName = "whole",
    half: bool = False,
    judge: Judge | None = None,
) -> Exported:
    """Writes the file, which carries its proof, and returns this.

    Args:
        detector: any, upgraded or plain, on the CPU.
        output: the file, which ends in ``.onnx`` or ``.pt2``; what stood there is replaced once the new one is proved.
        source: name and SHA-256 of the file that the detector was read from.
        part: what of it.
        half: convolutions and matrix products of an ONNX file in half precision; it has a bar of its own.
        judge: is shown the exported detector and says what should stand in the file too, AP for instance.

    Raises:
        ValueError: the detector cannot be exported, the extra is missing, or the outputs differ by more than rounding,
            or half precision, explains; nothing is written.
    """
    check(detector, output, part, half=half, judged=judge is not None)
    exported = PARTS[part](detector)
    program = traced(exported)
    base = detector.detector if isinstance(detector, RefinedDetector) else detector
    metadata = {
        "kind": exported.kind,
        "version": refinebox.__version__,
        "detector": describe(detector),
        "sha256": base.weights_sha256(),
        "source": source,
        "upgraded": isinstance(detector, RefinedDetector),
        "clips": isinstance(detector, RefinedDetector) and detector.clips,
        "trims": bool(trims(base)),
        "precision": "float16" if half else "float32",
        "strides": detector.strides,
    }
    judged: dict[str, Any] = {}
    if output.suffix == ".onnx":
        model = to_onnx(program, exported)
        model = halved(model) if half else model
        content = model.SerializeToString()
        session = session_of(content, exported)
        proof = prove(in_onnxruntime(session, exported), exported, HALF if half else WHOLE)
        if judge is not None:
            judged = judge(as_detector(session, metadata, str(output)))
        metadata |= {"proof": asdict(proof), "judged": judged}
        model.metadata_props.add(key=METADATA_KEY, value=json.dumps(metadata))
        content = model.SerializeToString()
    else:
        proof = prove(in_torch(saved(program, metadata)), exported)
        content = saved(program, metadata | {"proof": asdict(proof)})
    checkpoint.remove_leftovers(output)
    checkpoint.write_bytes(output, content)
    return Exported(proof, judged)


def check(detector: Detector, output: Path, part: PartName, *, half: bool, judged: bool) -> None:
    """Raises ValueError where it is known before any work that nothing comes of it."""
    if output.suffix not in FORMATS:
        raise ValueError(
            f"{output} does not end in {' or '.join(FORMATS)}, by which the kind of file is known; name one that does"
        )
    if half and output.suffix != ".onnx":
        raise ValueError(f"half precision is for .onnx files, and {output} is none; leave it out, or name one")
    if judged and (part != "whole" or output.suffix != ".onnx"):
        raise ValueError("AP is measured of a whole .onnx file; leave out the data, or export that")
    reason = obstacle(detector, part)
    if reason:
        raise ValueError(f"{detector.profile.name} cannot be exported: {reason}")
    if output.suffix == ".onnx":
        for module in ("onnx", "onnxscript"):
            library(module, "onnx")
        runtime()


def to_onnx(program: ExportedProgram, part: Part) -> Any:
    """The ONNX model (``onnx.ModelProto``) of a graph.

    Raises:
        ValueError: an operation has no counterpart.
    """
    names = list(program.call_spec.out_spec.context)  # of the mapping that the part returns
    with quiet(), torch.no_grad():
        try:
            exported = torch.onnx.export(
                without_checks(program),
                opset_version=OPSET,
                input_names=part.inputs,
                output_names=names,
                verbose=False,
            )
        except Exception as error:
            raise refused(part, error) from error
    assert exported is not None
    return exported.model_proto


def session_of(model: bytes, part: Part) -> Any:
    """The model in onnxruntime.

    Raises:
        ValueError: onnxruntime is missing or old, or cannot run it.
    """
    try:
        return open_session(model)
    except RuntimeError as error:
        raise refused(part, error, "onnxruntime") from error


def in_onnxruntime(session: Any, part: Part) -> Run:
    """Runs a session on torch's tensors."""
    names = [output.name for output in session.get_outputs()]

    def run(arguments: tuple[Any, ...]) -> dict[str, torch.Tensor]:
        tensors = dict(zip(part.inputs, pytree.tree_leaves(arguments), strict=True))
        wanted = {given.name for given in session.get_inputs()}  # a graph does not take what it does not read
        try:
            found = session.run(None, {name: tensor.numpy() for name, tensor in tensors.items() if name in wanted})
        except Exception as error:  # of a class of its own; some faults of a graph are found when it runs
            raise refused(part, error, "onnxruntime") from error
        return {name: torch.from_numpy(array) for name, array in zip(names, found, strict=True)}

    return run


def saved(program: ExportedProgram, metadata: dict[str, Any]) -> bytes:
    """A ``.pt2`` file, with the metadata as ``refinebox.json`` in it."""
    buffer = BytesIO()
    with quiet():
        torch.export.save(program, buffer, extra_files={f"{METADATA_KEY}.json": json.dumps(metadata)})
    return buffer.getvalue()


def in_torch(content: bytes) -> Run:
    """Runs what a ``.pt2`` file holds, as it is after it has been read again."""
    with quiet():
        module = torch.export.load(BytesIO(content)).module()
    return lambda arguments: module(*arguments)
