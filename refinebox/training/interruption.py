"""SIGTERM and SIGINT as a wish to stop, which the training grants after the step or evaluation under way."""

import signal
from types import FrameType
from typing import Any, Self


class Interrupted(Exception):
    """The training was asked to stop and has saved everything; the message says how to go on.

    Attributes:
        signal: its number.
        exit_code: what shells say of a program that the signal ended.
    """

    def __init__(self, message: str, number: int) -> None:
        super().__init__(message)
        self.signal = number
        self.exit_code = 128 + number


class Interruption:
    """Notes the first SIGTERM or SIGINT while entered, in ``signal`` (0 before); a second SIGINT stops at once."""

    def __init__(self) -> None:
        self.signal = 0
        self.before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        for number in (signal.SIGTERM, signal.SIGINT):
            try:
                self.before[number] = signal.signal(number, self._note)
            except ValueError:  # only the main thread may; elsewhere signals do what they did
                break
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)

    def _note(self, number: int, _: FrameType | None) -> None:
        if self.signal and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.signal = self.signal or number
