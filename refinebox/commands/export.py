"""``refinebox export``: a detector, or a part of it, as a file that runs without refinebox and is proved equal."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from refinebox.commands.options import (
    DATA,
    OUTPUT,
    Annotations,
    Categories,
    Ema,
    Images,
    LongSide,
    Model,
    ShortSide,
    Weights,
)

if TYPE_CHECKING:
    from refinebox.detection.detector import Detector

EXAMPLE = "Example: refinebox export better.safetensors --output better.onnx"


def export(
    model: Model,
    output: Annotated[
        Path, typer.Option(help="The file to write: .onnx, or .pt2 for torch without refinebox, and for C++.")
    ],
    part: Annotated[
        Literal["whole", "refiner", "features"],
        typer.Option(
            help="Images to detections; maps and boxes to better boxes; or images to maps.", rich_help_panel=OUTPUT
        ),
    ] = "whole",
    half: Annotated[
        bool,
        typer.Option(
            "--half", help="Products and convolutions in half precision; boxes stay whole.", rich_help_panel=OUTPUT
        ),
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Replace a file that stands there.", rich_help_panel=OUTPUT)
    ] = False,
    weights: Weights = None,
    ema: Ema = None,
    data: Annotated[
        Path | None,
        typer.Option("--data", help="Images to compare AP on, as for eval.", rich_help_panel=DATA),
    ] = None,
    annotations: Annotations = None,
    images: Images = None,
    categories: Categories = "check",
    short_side: ShortSide = None,
    long_side: LongSide = None,
) -> None:
    """Write an ONNX file, upgraded or plain, once onnxruntime gives what torch gives; or torch's own .pt2."""
    from refinebox.commands.inputs import load, read_split
    from refinebox.detection.zoo import weights_file
    from refinebox.files import place
    from refinebox.refinement.export import check
    from refinebox.refinement.export import export as write
    from refinebox.refinement.upgraded import source

    place.check_file(output)
    if output.exists() and not force:
        raise FileExistsError(f"{output} exists; name another file, or pass --force to replace it once the new one is")
    detector = load(model, weights, "cpu", short_side, long_side, ema=ema)
    judged = data is not None or annotations is not None
    check(detector, output, part, half=half, judged=judged)
    validation = read_split("val", data, annotations, images) if judged else None
    if validation is not None and all(entry["iscrowd"] for entry in validation.annotations):
        raise ValueError(
            f"{validation.folder} has no objects, so there is no AP to compare; leave out --data, or name others"
        )

    def judge(exported: "Detector") -> dict[str, Any]:
        return {"AP": ap_beside(detector, exported, validation, categories)}

    file = None if model.endswith(".onnx") else weights_file(model, weights)
    done = write(
        detector,
        output,
        source(file) if file else None,
        part=part,
        half=half,
        judge=judge if judged else None,
    )
    proof, runs = done.proof, "onnxruntime" if output.suffix == ".onnx" else "the graph"
    sizes = " and ".join(f"{width} x {height}" for height, width in proof.sizes)
    typer.echo(
        f"wrote {output} ({output.stat().st_size / 2**20:.1f} MiB): {runs} differs from torch by at most "
        f"{proof.told()}, in batches of {' and '.join(map(str, proof.batches))} of {sizes} pixels"
    )
    if ap := done.judged.get("AP"):
        typer.echo(
            f"AP of {ap['images']} images: {ap['torch']:.2f} in torch, {ap['exported']:.2f} in {runs} "
            f"({ap['exported'] - ap['torch']:+.2f})"
        )


def ap_beside(detector: "Detector", exported: "Detector", data: Any, categories: Any) -> dict[str, Any]:
    """AP, in points, of a detector and of the file that was made of it, after refinement where there is any."""
    from refinebox.evaluation.detect import evaluate
    from refinebox.evaluation.link import Link

    link = Link.between(detector, data, categories)
    found = {name: evaluate(each, data, link) for name, each in (("torch", detector), ("exported", exported))}
    aps = {name: metrics.get("after", metrics["before"])["AP"] for name, metrics in found.items()}
    return {"images": len(data.images), **aps}
