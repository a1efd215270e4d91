"""What a run tells while it goes on."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from refinebox.data.input_format import InputFormat
from refinebox.training.run import described_input, open_run, sentence
from refinebox.training.settings import Settings

LINE: dict[str, Any] = {"epoch": 2, "loss": 1.2345, "before": {"AP": 40.0}, "after": {"AP": 41.25}, "seconds": 9.4}


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ({}, "validation AP 41.2, 9 s"),
        ({"averaged": {"AP": 42.0}}, "validation AP 42.0 with averaged weights, 9 s"),
        ({"clipped": {"AP": 40.5}, "after": {"AP": None}}, "validation AP 0.0, 9 s"),
        (
            {"unreadable": 2, "such_as": "x.jpg is not there"},
            "validation AP 41.2, 9 s; left out 2 images that could not be read, such as: x.jpg is not there",
        ),
    ],
    ids=["last", "averaged", "nothing to find", "unreadable"],
)
def test_an_epoch_says_its_ap_and_no_difference(more: dict[str, Any], told: str) -> None:
    """For these images choose the best epoch."""
    assert sentence({**LINE, **more}, 12) == f"epoch 2/12: loss 1.234, {told}"


def test_a_run_with_an_input_format_of_its_own_goes_on(tmp_path: Path) -> None:
    """Its mean and deviation are tuples, and lists in the file."""
    form = InputFormat(mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
    config = described_input(form) | asdict(Settings())
    open_run(tmp_path, config, continued=False)
    open_run(tmp_path, config, continued=True)
    other = described_input(InputFormat(mean=(0.4, 0.5, 0.5))) | asdict(Settings())
    with pytest.raises(ValueError, match="started with other settings: input was"):
        open_run(tmp_path, other, continued=True)
