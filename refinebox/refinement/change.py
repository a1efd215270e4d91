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


def deciding(choice: Mapping[str, Any]) -> str:
    """Which images decided whether a refiner is worth applying, as its file knows it."""
    if choice.get("known") is None:
        return f"{choice['images']} training images that were held out"
    return (
        f"{choice['images']} validation images, as the detector knows held-out training images by heart (AP "
        f"{choice['known']:.1f} there),"
    )


def decided(choice: Mapping[str, Any]) -> str:
    """The gain on these images; files before 0.2 know the difference alone."""
    gain, note = choice["boxes"], ""
    if choice.get("known") is not None:
        note = ", of images that also chose the epoch"
    elif choice.get("ended"):
        note = ", of images that also ended the training"
    interval = f"{between(gain['low'], gain['high'])}{note}"
    if choice.get("before") is None or choice.get("after") is None:
        return f"{gain['mean']:+.1f} ({interval})"
    return f"{choice['before']:.1f} → {choice['after']:.1f} ({choice['after'] - choice['before']:+.1f}, {interval})"
