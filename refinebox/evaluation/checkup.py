"""All that can be told to be wrong with data, results and detector, in words, without anything being trained."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from refinebox.data import split as splitting
from refinebox.data.annotations import CocoData, labelled_size
from refinebox.data.categories import Matching
from refinebox.data.frames import Reading
from refinebox.data.images import read_image
from refinebox.data.remedies import remedy
from refinebox.data.tally import Tally
from refinebox.evaluation.evaluator import coco_ap, points
from refinebox.evaluation.plausibility import mistakes
from refinebox.evaluation.results import read_results
from refinebox.progress import track

if TYPE_CHECKING:  # who has data alone examines them without torch
    from refinebox.detection.detector import Detector

DECODED = 1000  # images that are decoded, evenly spread
LOOKED_AT = 20  # images that the detector sees
NOTHING = 1.0  # AP in points, below which a detector finds next to nothing
FEW = 20  # objects of a category, with fewer of which its AP is a matter of chance


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        what: a sentence.
        wrong: whether it has to be put right; None where it is as it should be.
        advice: what to do; may be empty.
    """

    what: str
    wrong: bool | None = None
    advice: str = ""


def of_data(data: CocoData) -> list[Finding]:
    """What reading the annotations counted, and categories that are too rare to say anything about."""
    sizes = f"{len(data.images):,} images, {len(data.annotations):,} boxes, {len(data.categories)} categories"
    found = [Finding(sizes), *of_notes(data.notes)]
    if not any(not entry["iscrowd"] for entry in data.annotations):
        found.append(Finding("there is no object in these images", True, "annotate some, or name other annotations"))
    counts = dict.fromkeys(data.used, 0)
    for entry in data.annotations:
        counts[entry["category_id"]] += not entry["iscrowd"]
    rare = [data.categories[number] for number, count in counts.items() if 0 < count < FEW]
    if rare:
        what = f"{len(rare)} categories have fewer than {FEW} objects, such as {rare[0]!r}"
        found.append(Finding(what, False, "annotate more of them, or do not look at their AP one by one"))
    return found


def of_notes(notes: Mapping[str, int], sentences: Sequence[str] = ()) -> list[Finding]:
    """What was counted or said while files were read; a sentence that no remedy knows is a mistake in itself."""
    found = []
    for note, count in [*notes.items(), *((sentence, 0) for sentence in sentences)]:
        known = remedy(note)
        what = f"{count:,} {note}" if count else note
        found.append(Finding(what, True) if known is None else Finding(what, known.wrong, known.advice))
    return found


def of_images(data: CocoData) -> list[Finding]:
    """Whether the images can be decoded to their ends, of many a sample; files that are missing are told elsewhere."""
    there = [entry for entry in data.images if (data.folder / entry["file_name"]).is_file()]
    chosen = there[:: max(1, len(there) // DECODED)]
    faults = []
    for entry in track(chosen, "images", len(chosen)):
        try:
            read_image(data.folder / entry["file_name"], labelled_size(entry), upright=data.upright)
        except (OSError, ValueError) as error:
            faults.append(str(error))
    if faults:
        what = f"{len(faults)} of {len(chosen)} images cannot be used: {faults[0]}"
        return [Finding(what, True, "copy or export them again, or take them out of the annotations")]
    return [Finding(f"all of {len(chosen):,} images that were opened can be read")] if chosen else []


def of_splits(training: CocoData, validation: CocoData) -> list[Finding]:
    """Whether images to learn from are to judge by, too."""
    same = splitting.common(training, validation)
    if not same:
        return [Finding("no validation image is a training image")]
    what = (
        f"{same} of {len(validation.images)} validation images are training images too, so AP says little about others"
    )
    return [Finding(what, True, "take them out of one of the two, or train with --val-fraction 0.1")]


def of_results(path: Path, data: CocoData, categories: Matching, boxes: Reading | None) -> list[Finding]:
    """What is wrong with a results file of these images.

    Raises:
        FileNotFoundError, ValueError: it cannot be read, or not be believed; the message says what to do.
    """
    tally = Tally()
    rows = read_results(path, data, categories=categories, boxes=boxes, tally=tally)
    return of_notes(tally.notes(), tally.sentences) + of_ap(coco_ap(data, rows)["AP"], len(data.images))


def of_ap(ap: float | None, images: int) -> list[Finding]:
    """Whether anything is found at all."""
    if ap is None:
        return []
    what = f"AP {ap:.1f} on {images} image{'s' if images > 1 else ''}"
    if ap >= NOTHING:
        return [Finding(what)]
    advice = "look whether boxes, categories (--categories) and images are what the detector was trained on"
    return [Finding(f"{what}: next to nothing is found", True, advice)]


def of_detector(detector: "Detector", data: CocoData, categories: Matching) -> list[Finding]:
    """Whether a detector's categories are the data's, and whether it finds anything in some of the images.

    Raises:
        ValueError: the categories cannot be matched, or no image can be read; the message says what to do.
    """
    from refinebox.evaluation.detect import detect
    from refinebox.evaluation.doubts import beforehand
    from refinebox.evaluation.link import Link

    link = Link.between(detector, data, categories)
    found = [Finding(f"{len(link.data_ids)} categories of the detector are matched with those of the data")]
    with_objects = {entry["image_id"] for entry in data.annotations if not entry["iscrowd"]}
    ids = [entry["id"] for entry in data.images if entry["id"] in with_objects]
    chosen = set(ids[:: max(1, len(ids) // LOOKED_AT)][:LOOKED_AT])
    if not chosen:
        return found
    some = replace(splitting.of_images(data, chosen), given=data.given)
    rows = detect(detector, some, link, description="detector", unreadable=[])["before"]
    odd = beforehand(detector, data, link) + [mistake.sentence for mistake in mistakes(rows, some)]
    found += [Finding(sentence, True) for sentence in odd]
    return found + of_ap(points(coco_ap(some, rows)), len(chosen))


def of_contract(detector: "Detector") -> list[Finding]:
    """Whether a detector of the user's own does what the package relies on."""
    from refinebox.detection.testing import check_detector

    try:
        check_detector(detector)
    except AssertionError as error:
        return [Finding(str(error), True, "put the adapter right; docs/adapters.md says what it has to do")]
    return [Finding("its adapter keeps the contract")]
