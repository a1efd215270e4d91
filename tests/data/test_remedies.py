"""Every note that reading can make has a remedy."""

import ast
from pathlib import Path

import pytest

import refinebox
from refinebox.data.remedies import REMEDIES, remedy

PACKAGE = Path(refinebox.__file__).parent


def counted() -> list[str]:
    """The beginning of everything that some module counts, up to what is filled in."""
    found = []
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "tally.add":
                text = node.args[0]
                first = text.values[0] if isinstance(text, ast.JoinedStr) else text
                if isinstance(first, ast.Constant):
                    found.append(str(first.value))
    return found


def test_everything_that_is_counted_has_a_remedy() -> None:
    notes = counted()
    assert len(notes) > 25
    assert [note for note in notes if remedy(note) is None] == []


@pytest.mark.parametrize(
    "note",
    [
        *("image ids numbered inside, such as '7f'", "category ids numbered inside", "categories of equal names"),
        *("category entries that are there twice left out", "images that are listed under several ids, such as a.jpg"),
        *("boxes outside of their image", "boxes reach beyond their image, or are smaller than a pixel"),
        *("boxes taken from segmentations, such as annotations[4]", "annotations without a box left out"),
        "all detections have the same score, so that none is better than another; AP means little then",
    ],
)
def test_what_is_put_together_has_one_too(note: str) -> None:
    assert remedy(note) is not None


def test_what_is_wrong_has_a_way_out() -> None:
    assert [found.pattern for found in REMEDIES if found.wrong and not found.advice] == []


def test_a_sentence_has_none() -> None:
    assert remedy("category ids look shifted by one") is None
