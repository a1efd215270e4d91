"""Hundreds of spoiled annotation and results files: never a traceback, never another AP without a word."""

import copy
from dataclasses import dataclass
from pathlib import Path

import pytest
from hostile import Content, Spoil, good, variants, write

from refinebox.data import annotations
from refinebox.data.tally import Tally
from refinebox.evaluation.evaluator import coco_ap
from refinebox.evaluation.results import read_results

VARIANTS = dict(variants())


@dataclass(frozen=True)
class Outcome:
    """AP in points, and everything that is said; or the error's line alone."""

    ap: float | None
    said: frozenset[str]


@dataclass(frozen=True)
class Sound:
    folder: Path
    content: Content
    results: list[Content]
    outcome: Outcome


def outcome(folder: Path, content: object, results: object, *, images_needed: bool) -> Outcome:
    paths = write(folder / "annotations.json", content), write(folder / "results.json", results)
    tally = Tally()
    try:
        data = annotations.read(paths[0], folder, images_needed=images_needed)
        rows = read_results(paths[1], data, tally=tally)
    except (ValueError, OSError) as error:
        return Outcome(None, frozenset([str(error)]))
    notes = {f"{count} {note}" for note, count in data.notes.items()}
    return Outcome(coco_ap(data, rows)["AP"], frozenset(notes | set(tally.lines("results"))))


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Sound:
    folder = tmp_path_factory.mktemp("field")
    content, results = good(folder)
    return Sound(folder, content, results, outcome(folder, content, results, images_needed=True))


def test_the_good_files_are_good(sound: Sound) -> None:
    assert 30 < (sound.outcome.ap or 0) < 80
    assert sound.outcome.said == frozenset()


def test_there_are_many() -> None:
    assert len(VARIANTS) >= 700


@pytest.mark.parametrize("spoil", VARIANTS.values(), ids=VARIANTS)
def test_nothing_is_silently_wrong(spoil: Spoil, sound: Sound) -> None:
    spoiled = spoil(copy.deepcopy(sound.content), copy.deepcopy(sound.results))
    for images_needed in (True, False):
        found = outcome(sound.folder, *spoiled, images_needed=images_needed)
        assert all(len(line) < 800 and "\n" not in line for line in found.said)
        if found.ap is None or abs(found.ap - (sound.outcome.ap or 0)) > 0.5:
            assert found.said - sound.outcome.said, f"AP {found.ap} instead of {sound.outcome.ap}"
