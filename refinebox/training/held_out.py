"""Is the refiner worth it? Decided on images that it never learned from, by a paired interval above zero."""

import random
from collections.abc import Mapping
from copy import copy, deepcopy
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Self

from refinebox import distributed
from refinebox.data.annotations import CocoData
from refinebox.data.categories import Matching
from refinebox.detection.detector import Detector
from refinebox.evaluation.bootstrap import Interval, difference
from refinebox.evaluation.detect import detect, evaluate, unrefined
from refinebox.evaluation.evaluator import coco_ap, points
from refinebox.evaluation.link import Link
from refinebox.files import checkpoint
from refinebox.progress import tell
from refinebox.refinement import change
from refinebox.refinement.refined_detector import RefinedDetector
from refinebox.refinement.refiner import Refiner
from refinebox.refinement.refiner_file import load_refiner_and_history
from refinebox.refinement.upgraded import let_vote
from refinebox.training.quality import train_quality
from refinebox.training.settings import Settings

FEWEST, MOST = 10, 1000  # images that are held out; an interval over fewer says nothing, more say nothing new
BY_HEART = 10.0  # points of AP by which a detector is better on images than on unseen ones, if it learned them by heart


@dataclass(frozen=True)
class Choice:
    """What the held-out images say, or validation images where the detector knows the held-out ones by heart.

    Attributes:
        images: how many decided.
        refine: whether the refiner is worth applying.
        rescore: whether its quality head is, too.
        boxes: gain of AP by the moved boxes over the detector's own, cut at the borders alike.
        scores: further gain by the quality head; None without one.
        before, after: AP in points of the detector's boxes, cut alike, and of the moved ones; None in older files.
        vote: whether the candidates that suppression drops shall move the boxes that it keeps.
        votes: gain by that; None where nothing is suppressed.
        ended: whether these images also said when to stop the training.
        known: the detector's AP on the held-out images, where it knows them by heart; else None.
    """

    images: int
    refine: bool
    rescore: bool
    boxes: Interval
    scores: Interval | None = None
    before: float | None = None
    after: float | None = None
    vote: bool = False
    votes: Interval | None = None
    ended: bool = False
    known: float | None = None

    @classmethod
    def read(cls, metadata: Mapping[str, Any]) -> Self | None:
        """From what a refiner's file says; None where nothing was held out."""
        if (found := metadata.get("choice")) is None:
            return None
        gains = {name: found.get(name) and Interval(**found[name]) for name in ("boxes", "scores", "votes")}
        return cls(**{**found, **gains})

    def __str__(self) -> str:
        """A clause for the verdict."""
        text = f"{change.deciding(asdict(self))} say {change.decided(asdict(self))}"
        if self.scores is not None:
            scores = f"{self.scores.mean:+.1f} ({change.between(self.scores.low, self.scores.high)})"
            text += f", and its scores {scores}, so they are {'kept' if self.rescore else 'left alone'}"
        if self.votes is not None:
            votes = f"{self.votes.mean:+.1f} ({change.between(self.votes.low, self.votes.high)})"
            text += f", and box voting {votes}, so suppressed candidates {'vote' if self.vote else 'do not vote'}"
        if self.known is not None:
            return text
        return f"{text} (a detector that was trained on these images looks better there than it is)"


@dataclass(frozen=True)
class Splits:
    """Which images do what in a training.

    Attributes:
        learned: training images that are learned from,
        held_out: and those that decide; None where they would be too few.
        validation: what every epoch is judged by.
    """

    learned: CocoData
    held_out: CocoData | None
    validation: CocoData

    @classmethod
    def of(cls, training: CocoData, validation: CocoData, settings: Settings) -> Self:
        """Raises ValueError where held-out images should end the training and there are none."""
        learned, held_out = hold_out(training, settings.held_out, settings.seed)
        if settings.growing and held_out is None:
            raise ValueError(
                f"--epochs auto asks held-out images when to stop, and {settings.held_out:.0%} of "
                f"{len(training.images)} are too few; hold out {FEWEST} or more (--held-out), or name a number of "
                "epochs"
            )
        return cls(learned, held_out, validation)

    def few(self, count: int) -> "Splits":
        """The first ``count`` images of each, with objects where they are learned from, as a rehearsal needs them."""
        with_objects = {entry["image_id"] for entry in self.learned.annotations if not entry["iscrowd"]}
        held_out = None if self.held_out is None else first(self.held_out, count)
        learned = first(self.learned, count, with_objects or None)  # with none at all, all will be told
        return Splits(learned, held_out, first(self.validation, count))


def first(data: CocoData, count: int, among: set[int] | None = None) -> CocoData:
    """The first ``count`` images, of those whose ids are ``among`` if that is given, and their annotations."""
    images = [entry for entry in data.images if among is None or entry["id"] in among][:count]
    ids = {entry["id"] for entry in images}
    return replace(data, images=images, annotations=[entry for entry in data.annotations if entry["image_id"] in ids])


def hold_out(training: CocoData, share: float, seed: int) -> tuple[CocoData, CocoData | None]:
    """The images to learn from, and a random ``share`` of those with objects to choose by; None if it is too small."""
    with_objects = {entry["image_id"] for entry in training.annotations if not entry["iscrowd"]}
    ids = [entry["id"] for entry in training.images if entry["id"] in with_objects]
    count = min(MOST, round(share * len(ids)))
    if count < FEWEST:
        return training, None
    held = set(random.Random(f"held out {seed}").sample(ids, count))
    return without(training, held), without(training, {entry["id"] for entry in training.images} - held)


def without(data: CocoData, ids: set[int]) -> CocoData:
    """``data`` without these images and their objects."""
    return replace(
        data,
        images=[entry for entry in data.images if entry["id"] not in ids],
        annotations=[entry for entry in data.annotations if entry["image_id"] not in ids],
    )


def conclude(
    path: Path,
    detector: Detector,
    learned: CocoData,
    held_out: CocoData | None,
    validation: CocoData,
    settings: Settings,
    categories: Matching,
    *,
    batch_size: int,
    workers: int,
    strict: bool = False,
) -> None:
    """Trains the quality head if it is asked for, chooses, and writes both into the refiner's file at ``path``.

    Without held-out images nothing is chosen: the head, if it is asked for, is kept. Where the detector knows these by
    heart, validation images choose. Images that cannot be read are
    told, as they count as missed before and after alike; where ``strict`` they are an error.
    """
    distributed.gathered([])  # until the first process has written the file
    refiner, history = load_refiner_and_history(path)
    refiner.to(next(detector.parameters()).device)
    refiner.quality = None  # of an earlier end of the same training
    unreadable: list[str] = []
    asked: dict[str, Any] = {
        "batch_size": batch_size,
        "workers": workers,
        "unreadable": None if strict else unreadable,
    }
    links = [Link.between(detector, data, categories) for data in (learned, validation)]
    if settings.quality:
        refiner.quality = train_quality(detector, refiner, learned, links[0], settings.seed, batch_size, workers)
    voting = None
    if held_out is not None:
        choice = replace(choose(detector, refiner, held_out, links[0], asked), ended=settings.growing)
        if by_heart(choice.before, (history.get("clipped") or history["before"])["AP"]):
            choice = replace(choose(detector, refiner, validation, links[1], asked), known=choice.before)
        history["choice"] = asdict(choice)
        refiner.quality = refiner.quality if choice.rescore else None
        voting = voter(detector) if choice.refine and choice.vote else None
    if refiner.quality is not None or voting is not None:
        final = RefinedDetector(voting or detector, refiner)
        history["after"] = evaluate(final, validation, links[1], **asked)["after"]
    if unreadable:
        count = len(set(unreadable))
        tell(f"{count} images that should decide could not be read, such as: {min(unreadable)}", warning=True)
    if distributed.rank() == 0:
        checkpoint.write(path, refiner.state_dict(), history)
    distributed.gathered([])


def by_heart(seen: float | None, unseen: float | None) -> bool:
    """Whether a detector of these APs on training and on validation images (None without objects) knows the former.

    Then there is nothing to mend in its boxes there, and a refiner that mends those of other images looks useless.
    """
    return seen is not None and unseen is not None and seen - unseen > BY_HEART


def choose(detector: Detector, refiner: Refiner, images: CocoData, link: Link, asked: Mapping[str, Any]) -> Choice:
    """What ``images`` say, from one pass: of the refiner, of its quality head if it has one, and of voting.

    Each is judged on top of what was chosen before it: voting for the boxes and scores that there will be, be they
    refined and rescored or the detector's own.
    """
    plain = deepcopy(refiner)
    plain.quality = None
    others = {} if refiner.quality is None else {"rescored": refiner}
    model = RefinedDetector(detector, plain)
    rows = detect(model, images, link, others=others, voter=voter(detector), **asked)
    own = rows[unrefined(rows)]
    boxes = difference(images, own, rows["after"])
    scores = difference(images, rows["after"], rows["rescored"]) if "rescored" in rows else None
    refine, rescore = boxes.low > 0, scores is not None and scores.low > 0
    final = ("rescored" if rescore else "after") if refine else "before"
    votes = difference(images, rows[final], rows[f"{final} voted"]) if f"{final} voted" in rows else None
    before, after = (points(coco_ap(images, found)) for found in (own, rows["after"]))
    vote = votes is not None and votes.low > 0
    return Choice(len(images.images), refine, rescore, boxes, scores, before, after, vote, votes)


def voter(detector: Detector) -> Detector | None:
    """The detector with suppressed candidates that vote; None where it suppresses nothing, or they do so already."""
    if detector.profile.final.rule != "suppression" or detector.profile.final.voting:
        return None
    voting = copy(detector)  # which shares its tensors
    let_vote(voting)
    return voting
