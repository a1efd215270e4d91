"""How a training ended, in figures and in a sentence."""

from dataclasses import dataclass
from pathlib import Path

from refinebox.evaluation.evaluator import Metrics, points
from refinebox.training.held_out import Choice

TROUBLE = 0.1  # share of far matches that is worth mentioning
TIGHT = 0.85  # mean IoU, above which there is little to mend
FEW = 50  # held-out images
FEW_OBJECTS = 100  # from which no refiner learns what holds elsewhere
NOTHING = 1.0  # AP in points, below which a detector finds next to nothing


@dataclass(frozen=True)
class Report:
    """How a training ended.

    Attributes:
        best: the file with the refiner of the best epoch.
        before, after: AP and its kin on the validation images in points, without and with that refiner.
        weights: ``last``, as the epoch left them, or ``averaged``.
        seconds: wall time, of all sittings together.
        clipped: as ``before``, with boxes cut at the borders of the image, where ``after`` has them so.
        choice: what the held-out training images say, where there are any.
        far_matches: share of the objects that no predicted box was near.
        overlap: mean IoU of the objects with their predicted boxes; None where nobody knows.
        objects: how many there were to learn from; None where nobody counted.
        loss: the highest mean loss of an epoch; None where nobody knows.
        jitter: copies of every object that were learned from as well.
    """

    best: Path
    before: Metrics
    after: Metrics
    weights: str
    seconds: float
    clipped: Metrics | None = None
    choice: Choice | None = None
    far_matches: float = 0.0
    overlap: float | None = None
    objects: int | None = None
    loss: float | None = None
    jitter: int = 0

    @property
    def gain(self) -> float:
        """AP after less AP before, in points; the detector's boxes are cut at the borders if the refined ones are."""
        return points(self.after) - points(self.clipped or self.before)

    @property
    def sound(self) -> bool:
        """Whether the refiner should be applied."""
        return self.gain >= 0 and (self.choice is None or self.choice.refine) and not self.faults()

    def faults(self) -> list[str]:
        """What makes the figures say nothing, and what is probably wrong."""
        found = []
        if self.loss == 0:
            found.append("NOTHING was learned, for no predicted box met an object (loss 0): are boxes of these images?")
        if points(self.before) < NOTHING:
            found.append(
                "the detector alone finds next to NOTHING here: check that boxes, categories (--categories) and images "
                "are what it was trained on"
            )
        if self.objects is not None and self.objects < FEW_OBJECTS:
            found.append(f"{self.objects} objects are too few to learn from; annotate {FEW_OBJECTS} at least")
        return found

    def verdict(self) -> str:
        """The result in a sentence; a loss is called a loss, and what the figures cannot say is told."""
        return "; ".join((self.result(), *self.faults()))

    def result(self) -> str:
        """The figures, and what they say of the refiner."""
        cut = f" ({points(self.clipped):.1f} cut at the borders)" if self.clipped else ""
        change = (
            f"validation AP {points(self.before):.1f}{cut} → {points(self.after):.1f}, by which the epoch was chosen, "
            f"in {self.seconds:.0f} s"
        )
        if self.choice is not None:
            change += f"; {self.choice}"
        if self.gain >= 0 and (self.choice is None or self.choice.refine):
            return f"{change}; the refiner ({self.weights} weights) is in {self.best}"
        if self.gain >= 0:
            return f"{change}: the refiner is NOT WORTH applying as far as can be told{self.reasons()}"
        return (
            f"{change}: the refiner makes these boxes WORSE and should not be applied{self.reasons()}; train longer or "
            "on more images, or look at refinebox oracle-analysis: perhaps boxes are not what limits this detector"
        )

    def reasons(self) -> str:
        """What may lie behind it, as far as the training saw it."""
        found = []
        if self.far_matches > TROUBLE:
            found.append(f"{100 * self.far_matches:.0f} % of the objects had no predicted box near them")
        if self.overlap is not None and self.overlap > TIGHT:
            found.append(f"the detector's boxes are tight already, with a mean IoU of {self.overlap:.2f}")
        if self.jitter and self.choice is not None and self.choice.boxes.high < 0:
            found.append("moved copies of objects, off in other ways than its boxes, may mislead: try --jitter 0")
        if self.choice is not None and self.choice.known is None and self.choice.images < FEW:
            found.append(f"{self.choice.images} held-out images tell little; --held-out takes a larger share")
        return f" ({'; '.join(found)})" if found else ""
