"""How a training ended, in figures and in a sentence."""

from dataclasses import dataclass
from pathlib import Path

from refinebox.evaluation.evaluator import Metrics, points


@dataclass(frozen=True)
class Report:
    """How a training ended.

    Attributes:
        best: the file with the refiner of the best epoch.
        before, after: AP and its kin on the validation images in points, without and with that refiner.
        weights: ``last``, as the epoch left them, or ``averaged``.
        seconds: wall time, of all sittings together.
    """

    best: Path
    before: Metrics
    after: Metrics
    weights: str
    seconds: float

    @property
    def gain(self) -> float:
        """AP after less AP before, in points."""
        return points(self.after) - points(self.before)

    def verdict(self) -> str:
        """The result in a sentence; a loss is called a loss."""
        before, after = points(self.before), points(self.after)
        change = f"validation AP {before:.1f} → {after:.1f} ({self.gain:+.1f}) in {self.seconds:.0f} s"
        if self.gain >= 0:
            return f"{change}; the refiner ({self.weights} weights) is in {self.best}"
        return (
            f"{change}: the refiner makes these boxes WORSE and should not be applied; train longer or on more images, "
            "or look at refinebox oracle-analysis: perhaps boxes are not what limits this detector"
        )
