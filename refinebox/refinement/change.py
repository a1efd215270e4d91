"""How a gain is written, everywhere: before → after (difference, 95 % interval)."""

from collections.abc import Mapping
from typing import Any


def change(before: float, after: float, low: float | None = None, high: float | None = None) -> str:
    """``47.4 → 52.6 (+5.2, 95 %: +3.9 to +6.3)`` for AP in points; without an interval where there is none."""
    interval = "" if low is None or high is None else f", {between(low, high)}"
    return f"{before:.1f} → {after:.1f} ({after - before:+.1f}{interval})"


def between(low: float, high: float) -> str:
    """``95 %: +3.9 to +6.3``, of a difference in points."""
    return f"95 %: {low:+.1f} to {high:+.1f}"


def held_out(choice: Mapping[str, Any]) -> str:
    """The gain on the held-out images, as a refiner's file keeps it; files before 0.2 know the difference alone."""
    gain, note = choice["boxes"], ", of images that also ended the training" if choice.get("ended") else ""
    interval = f"{between(gain['low'], gain['high'])}{note}"
    if choice.get("before") is None or choice.get("after") is None:
        return f"{gain['mean']:+.1f} ({interval})"
    return f"{choice['before']:.1f} → {choice['after']:.1f} ({choice['after'] - choice['before']:+.1f}, {interval})"
