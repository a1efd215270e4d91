"""The documents of the repository, their code blocks, and the words of commands in them."""

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```", flags=re.DOTALL | re.MULTILINE)
HEADING = re.compile(r"^## (.*)", flags=re.MULTILINE)
ENDS = {"&&", "||", "|", ";", ">", "2>&1", "&"}


@dataclass(frozen=True)
class Block:
    """A fenced block of code; ``place`` is the document and the block's number in it, ``section`` the heading above."""

    place: str
    language: str
    code: str
    section: str

    @property
    def document(self) -> str:
        """Its path in the repository."""
        return self.place.split()[0]


def blocks(document: Path) -> list[Block]:
    text, name = document.read_text(encoding="utf-8"), document.relative_to(ROOT).as_posix()
    return [
        Block(f"{name} {number}", found[1], found[2], ["", *HEADING.findall(text, 0, found.start())][-1])
        for number, found in enumerate(FENCE.finditer(text), 1)
    ]


BLOCKS = [block for document in DOCUMENTS for block in blocks(document)]


def commands(shell: str) -> Iterator[list[str]]:
    """The words of each command of a shell block, without comments, loops, variables and what is redirected to."""
    for line in shell.replace("\\\n", " ").splitlines():
        line = re.sub(r"\$\(\(.*?\)\)|\$\w+", "1", line.removeprefix("$ "))  # what a variable may stand for
        line = re.sub(r"^\s*(for \w+ in [^;]*; *do|do|done|wait)\b|^\s*(\w+=\S* +)+", "", line)
        words: list[str] = []
        for word in [*shlex.split(line, comments=True), ";"]:
            if word in ENDS:
                if words:
                    yield words
                words = []
            else:
                words.append(word)


def inline(document: Path) -> list[str]:
    """The pieces of code within the text, each on one line."""
    text = FENCE.sub("", document.read_text(encoding="utf-8"))
    return [" ".join(code.split()) for code in re.findall(r"(?<!`)`([^`]+)`(?!`)", text)]


def as_refinebox(words: list[str]) -> list[str] | None:
    """What follows ``refinebox``, however it is started; None for another program."""
    if words[:1] == ["refinebox"]:
        return words[1:]
    if "-m" in words and words[words.index("-m") + 1 :][:1] == ["refinebox"]:
        return words[words.index("-m") + 2 :]
    return None
