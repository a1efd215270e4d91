"""``refinebox apply``: a checkpoint becomes an upgraded one."""

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from refinebox.commands.options import DetectorName, Ema, Features, Prompt, Weights

if TYPE_CHECKING:
    from refinebox.refinement.refined_detector import RefinedDetector
    from refinebox.report.card import Base

EXAMPLE = "Example: refinebox apply --detector dab-detr-r50 --refiner published --output better.safetensors"


def apply(
    output: Annotated[Path, typer.Option(help="The upgraded checkpoint to write.")],
    detector: DetectorName = None,
    features: Features = None,
    refiner: Annotated[
        str | None,
        typer.Option(help="best.safetensors of a run, a published model_final.pth, or the word published."),
    ] = None,
    voting: Annotated[
        bool,
        typer.Option("--voting", help="Let suppressed candidates move the boxes that are kept; needs no training."),
    ] = False,
    weights: Weights = None,
    ema: Ema = None,
    prompt: Prompt = None,
    force: Annotated[
        bool, typer.Option("--force", help="Even if the refiner is of other weights or made validation AP worse.")
    ] = False,
    card: Annotated[
        bool, typer.Option("--card", help="Write a model card, README.md, beside it, as model hubs show them.")
    ] = False,
) -> None:
    """Turn a checkpoint into an upgraded one: detector and refiner in one file."""
    from refinebox.commands.inputs import load
    from refinebox.detection.zoo import weights_file
    from refinebox.files import checkpoint, hub, place
    from refinebox.refinement.description import about_gain
    from refinebox.refinement.refined_detector import RefinedDetector
    from refinebox.refinement.upgraded import join, published_refiner, write
    from refinebox.report import card as cards

    place.check_file(output, ".safetensors file")
    card_file = cards.check_absent(output) if card else None
    named_weights, weights = weights, None if weights is None else hub.local(weights)
    refiner_file = hub.local(refiner) if refiner and refiner != "published" else None
    if refiner == "published":
        if detector is None:
            raise ValueError("refiners are published for detectors alone; name one with --detector")
        refiner_file = published_refiner(detector, weights, force=force)
    model = load(detector, weights, "cpu", ema=ema, prompt=prompt, features=features)
    detector_file = None if detector is None else weights_file(detector, weights)
    place.check_apart([output], [weights, refiner_file, detector_file])
    upgraded, history = join(model, refiner_file, voting=voting, force=force)
    cost = told_cost(upgraded) if isinstance(upgraded, RefinedDetector) else None
    metadata = write(upgraded, history, detector_file, refiner_file, output)
    known = "; ".join(f"{what} {value}" for what, value in about_gain(metadata).items())
    typer.echo(f"wrote {output}: {known or 'its AP is not known'}")
    if card_file is not None:
        made_from = base(detector, named_weights, weights)
        text = cards.card(metadata, output.name, checkpoint.file_sha256(output), made_from)
        checkpoint.write_bytes(card_file, text.encode())
        typer.echo(f"wrote {card_file}{'' if made_from.licence else ': look at its licence, which is not known'}")
    if cost is not None:
        typer.echo(f"cost: {cost}")
    typer.echo(f"next: refinebox eval {shlex.quote(str(output))} --data DATA")


def told_cost(upgraded: "RefinedDetector") -> str:
    """What refinement adds to a detector's cost, in words; an upgrade is none the worse where it cannot be counted."""
    from refinebox.data.fields import brief
    from refinebox.refinement.cost import cost_of

    try:
        return cost_of(upgraded).told()
    except Exception as error:  # whatever code of anybody's own raises
        return f"not counted, as a black image could not be looked at ({type(error).__name__}: {brief(error)})"


def base(detector: str | None, named: Path | None, weights: Path | None) -> "Base":
    """What is known of the detector that is upgraded.

    Args:
        detector: its name.
        named: its weights as they were named,
        weights: and where they are.
    """
    from refinebox.detection.published import DETECTORS
    from refinebox.files import checkpoint, hub
    from refinebox.report.card import Base

    text = detector if named is None else named.as_posix()
    if text is not None and hub.is_id(text):
        repository = text.partition(":")[0]
        return Base(hub.licence(repository), repository)
    entry = DETECTORS.get(detector or "")
    if entry is None:
        return Base()
    published = weights is None or (entry.sha256 and checkpoint.file_sha256(weights).startswith(entry.sha256))
    return Base(entry.licence, source=entry.source if not entry.bundled else None) if published else Base()
