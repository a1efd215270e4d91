"""What a file must say beside a detector's tensors, and the way back."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from refinebox.data.input_format import InputFormat
from refinebox.detection.choice import Choice
from refinebox.detection.detector import Detector
from refinebox.detection.profile import Profile
from refinebox.files import checkpoint


def describe(detector: Detector) -> dict[str, Any]:
    """What a file must say beside a detector's tensors so that it can be built again."""
    profile = detector.profile
    return {
        "name": profile.name,
        "family": profile.family,
        "layout": profile.layout,
        "classification": profile.classification,
        "categories": [{"id": i, "name": detector.category_names.get(i)} for i in detector.category_ids],
        "input": asdict(profile.input),
        "choice": profile.choice and asdict(profile.choice),
        "settings": dict(profile.settings),
    }


def profile_from(description: Mapping[str, Any], where: str) -> Profile:
    """The inverse of :func:`describe`; ``where`` names the file in messages.

    Raises:
        ValueError: something is missing from the description, or is something else than expected.
    """
    with checkpoint.understood(where):
        categories = description["categories"]
        return Profile(
            name=description["name"],
            family=description["family"],
            layout=description.get("layout", "authors"),  # files of version 0.1.0 know no other
            classification=description["classification"],
            category_ids=tuple(category["id"] for category in categories),
            category_names={category["id"]: category["name"] for category in categories if category["name"]},
            input=input_format(description),
            choice=Choice(**description["choice"]) if description.get("choice") else None,
            settings=description["settings"],
        )


def input_format(description: Mapping[str, Any]) -> InputFormat:
    """The input format of a :func:`describe`; files of version 0.1.0 know two sides and a layout alone."""
    if "input" not in description:
        sides = description["short_side"], description["long_side"]
        return InputFormat("shortest", *sides, rounding=description.get("layout", "authors"))
    fields = dict(description["input"])
    return InputFormat(**{**fields, "mean": tuple(fields["mean"]), "std": tuple(fields["std"])})
