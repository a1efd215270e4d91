"""The numbers of a training for TensorBoard, for those who ask for them and have the package."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any


class Board:
    """Event files in a folder. What an earlier sitting wrote there after ``step`` is overwritten as it is repeated.

    Args:
        folder: where TensorBoard looks; it is made if it is not there.
        step: optimizer steps that are done already; 0 in a new run.

    Raises:
        ValueError: TensorBoard is not installed; the message says how to.
        OSError: the folder cannot be written.
    """

    def __init__(self, folder: Path, step: int) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise ValueError(
                f"TensorBoard cannot be used ({error}); run: pip install refinebox[tensorboard]"
            ) from error
        self._writer = SummaryWriter(folder, purge_step=step + 1)

    def losses(self, step: int, losses: Mapping[str, float], rate: float) -> None:
        """Adds the losses and the learning rate of one step of the optimizer, counted from 1, under ``step/``."""
        for name, value in {**losses, "learning_rate": rate}.items():
            self._writer.add_scalar(f"step/{name}", value, step)

    def epoch(self, line: Mapping[str, Any], step: int) -> None:
        """Adds a line of ``metrics.jsonl`` after the last ``step`` of its epoch, and sees that all is on the disk.

        Metrics stand under their group, as ``before/AP``, other numbers as ``epoch/loss``; all else is left out.
        """
        groups = {name: value for name, value in line.items() if isinstance(value, Mapping)}
        others = {name: value for name, value in line.items() if name not in groups and name != "epoch"}
        for group, values in {"epoch": others, **groups}.items():
            for name, value in values.items():
                if isinstance(value, int | float):
                    self._writer.add_scalar(f"{group}/{name}", value, step)
        self._writer.flush()

    def close(self) -> None:
        """Writes what is left."""
        self._writer.close()
