"""``refinebox export``: a detector as an ONNX file that is proved equal."""

from pathlib import Path
from typing import Annotated

import typer

from refinebox.commands.options import Ema, LongSide, Model, ShortSide, Weights

EXAMPLE = "Example: refinebox export better.safetensors --output better.onnx"


def export(
    model: Model,
    output: Annotated[Path, typer.Option(help="The ONNX file to write.")],
    weights: Weights = None,
    ema: Ema = None,
    short_side: ShortSide = None,
    long_side: LongSide = None,
) -> None:
    """Write an ONNX file, upgraded or plain, once onnxruntime gives what torch gives."""
    from refinebox.commands.inputs import check_output_file, load
    from refinebox.detection.zoo import weights_file
    from refinebox.refinement.export import export as write
    from refinebox.refinement.upgraded import source

    check_output_file(output)
    if output.suffix != ".onnx":
        raise ValueError(f"{output} does not end in .onnx, by which refinebox knows such files; name one that does")
    detector = load(model, weights, "cpu", short_side, long_side, ema=ema)
    file = None if model.endswith(".onnx") else weights_file(model, weights)
    proof = write(detector, output, source(file) if file else None)
    sizes = " and ".join(f"{width} x {height}" for height, width in proof.sizes)
    typer.echo(
        f"wrote {output} ({output.stat().st_size / 2**20:.1f} MiB): onnxruntime differs from torch by at most "
        f"{proof.boxes:.2g} pixels and {proof.scores:.2g} of a score, in batches of "
        f"{' and '.join(map(str, proof.batches))} of {sizes} pixels"
    )
