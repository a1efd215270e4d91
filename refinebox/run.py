"""The folder of a training: what it was started with, what every epoch gave, and the best refiner."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from refinebox import checkpoint
from refinebox.data import CocoData
from refinebox.detector import Detector
from refinebox.evaluate import Metrics
from refinebox.refiner import Refiner


def configuration(detector: Detector, training: CocoData, settings: Mapping[str, Any]) -> dict[str, Any]:
    """What a run's ``config.json`` says, and what must not change before it is continued."""
    return {
        "detector": detector.profile.name,
        "detector_sha256": detector.weights_sha256(),
        "short_side": detector.profile.short_side,
        "long_side": detector.profile.long_side,
        "training_images": len(training.images),
        "training_boxes": len(training.annotations),
        **settings,
    }


# in how many parts a batch is computed changes the result by rounding and padding alone, as the number of processes
# does; so a training that ran out of memory late can go on
MAY_CHANGE = ("accumulate",)


def open_run(output: Path, config: Mapping[str, Any], continued: bool) -> None:
    """Makes the run's folder, or checks that the one to continue was started with the same ``config``."""
    if output.exists() and not output.is_dir():
        raise NotADirectoryError(f"{output} is a file; name a folder for the run")
    path = output / "config.json"
    for file in (path, output / "metrics.jsonl"):
        checkpoint.remove_leftovers(file)
    if not continued:
        if path.exists():
            raise FileExistsError(f"{output} already holds a run; pass --resume to continue it, or name another folder")
        checkpoint.write_json(path, config)
        return
    if not path.exists():
        raise FileNotFoundError(f"{output} holds no run to continue; leave out --resume to start one")
    try:
        old = json.loads(path.read_text())
    except ValueError as error:
        raise ValueError(f"{path} is damaged ({error}); start a new run in another folder") from error
    changed = [
        f"{key} was {old.get(key)}, now {config.get(key)}"
        for key in {**old, **config}
        if old.get(key) != config.get(key) and key not in MAY_CHANGE
    ]
    if changed:
        raise ValueError(
            f"{output} was started with other settings: {'; '.join(changed)}; use the old ones or another folder"
        )


def forget_after(metrics: Path, epoch: int) -> None:
    """Drops the lines of epochs that will be trained again."""
    if metrics.exists():
        lines = [line for line in metrics.read_text().splitlines() if json.loads(line)["epoch"] <= epoch]
        checkpoint.write_bytes(metrics, "".join(f"{line}\n" for line in lines).encode())


def record(output: Path, line: Mapping[str, Any], epochs: int) -> None:
    """Prints one epoch in one line, and adds it to ``metrics.jsonl``."""
    before, after = points(line["before"]), points(line["after"])
    change = f"AP {before:.1f} → {after:.1f} ({after - before:+.1f})"
    print(f"epoch {line['epoch']}/{epochs}: loss {line['loss']:.3f}, {change}, {line['seconds']:.0f} s", flush=True)
    metrics = output / "metrics.jsonl"
    old = metrics.read_text() if metrics.exists() else ""
    checkpoint.write_bytes(metrics, f"{old}{json.dumps(line)}\n".encode())  # appending could end in half a line


def write_refiner(
    path: Path, refiner: Refiner, detector: Detector, settings: Mapping[str, Any], best: Mapping[str, Any]
) -> None:
    """Writes the refiner and where it comes from, so that it is never applied to another detector by accident."""
    history = {
        "kind": "refiner",
        "strides": refiner.strides,
        "steps": refiner.steps,
        "detector": detector.profile.name,
        "detector_sha256": detector.weights_sha256(),
        "short_side": detector.profile.short_side,
        "long_side": detector.profile.long_side,
        "settings": dict(settings),
        **best,
    }
    checkpoint.write(path, refiner.state_dict(), history)


def points(metrics: Metrics) -> float:
    """AP in points; 0 where the validation images hold no object at all."""
    return metrics["AP"] or 0.0
