"""Everything that is said about speed, measured side by side in one run on this machine."""

import json
import os
import platform
from pathlib import Path
from typing import Annotated

import benchmark_detectors
import benchmark_epochs
import benchmark_evaluation
import benchmark_processes
import benchmark_scale
import benchmark_training
import torch
import typer

PARTS = {
    "training": benchmark_training.measure,
    "epochs": benchmark_epochs.measure,
    "processes": benchmark_processes.measure,
    "detectors": benchmark_detectors.measure,
    "evaluation": benchmark_evaluation.measure,
    "scale": benchmark_scale.measure,
}
SUMMARY = ("latency_ratio", "train_step_ratio", "refine_step_speedup", "cached_epoch_ratio")  # stand first in the JSON


def main(
    quick: Annotated[bool, typer.Option("--quick", help="Fewer repeats and sizes.")] = False,
    parts: Annotated[list[str] | None, typer.Argument(help=f"Of {', '.join(PARTS)}; all by default.")] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the figures to this file too.")] = None,
) -> None:
    """Print and write ratios; the seconds behind them mean little on another machine."""
    unknown = set(parts or []) - set(PARTS)
    if unknown:
        raise typer.BadParameter(f"unknown parts {', '.join(sorted(unknown))}; known: {', '.join(PARTS)}")
    machine = {
        "processor": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }
    print(machine)
    figures = {name: PARTS[name](quick) for name in parts or PARTS}
    if json_file is not None:
        summary = {name: found[name] for found in figures.values() for name in SUMMARY if name in found}
        json_file.write_text(json.dumps({**summary, "machine": machine, **figures}, indent=2))


if __name__ == "__main__":
    typer.run(main)
