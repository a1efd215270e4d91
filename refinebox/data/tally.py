"""What was dropped or guessed: how often, and the first of each kind."""

from collections import Counter

LONGEST = 120  # characters of an example


class Tally:
    """Counts by sentence; the first example of each is remembered."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.examples: dict[str, str] = {}

    def add(self, what: str, example: str = "", count: int = 1) -> None:
        """Counts ``what``; the first ``example`` that is not empty stays."""
        if count:
            self.counts[what] += count
            if example:
                self.examples.setdefault(what, example[:LONGEST])

    def notes(self) -> dict[str, int]:
        """How often each was counted, by the sentence with its example, in the order in which they came up."""
        return {
            f"{what}, such as {self.examples[what]}" if what in self.examples else what: count
            for what, count in self.counts.items()
        }
