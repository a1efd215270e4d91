"""What was dropped or guessed: how often, and the first of each kind."""

from collections import Counter

LONGEST = 90  # characters of an example


class Tally:
    """Counts by what was counted, of which the first example is remembered; and sentences that count nothing."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.examples: dict[str, str] = {}
        self.sentences: list[str] = []

    def add(self, what: str, example: str = "", count: int = 1) -> None:
        """Counts ``what``; the first ``example`` that is not empty stays."""
        if count:
            self.counts[what] += count
            if example:
                self.examples.setdefault(what, example[:LONGEST])

    def say(self, sentence: str) -> None:
        """Keeps a sentence."""
        self.sentences.append(sentence)

    def lines(self, subject: str) -> list[str]:
        """What is to be told about ``subject``: what was counted in one line, and every sentence in one of its own."""
        counted = "; ".join(f"{count:,} {note}" for note, count in self.notes().items())
        return [f"{subject}: {line}" for line in ([counted] if counted else []) + self.sentences]

    def notes(self) -> dict[str, int]:
        """How often each was counted, by the sentence with its example, in the order in which they came up."""
        return {
            f"{what}, such as {self.examples[what]}" if what in self.examples else what: count
            for what, count in self.counts.items()
        }
