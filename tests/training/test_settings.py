"""What a training is told, and what it makes of it."""

from dataclasses import fields

import pytest
import torch
from typer.main import get_command

from refinebox.commands import app as cli
from refinebox.training.settings import PUBLISHED, Settings, choose

CPU, GPU = torch.device("cpu"), torch.device("cuda")


def test_the_published_rate_falls_in_the_last_twelfth() -> None:
    rates = [PUBLISHED.rate(step, 90_000) for step in (0, 82_499, 82_500, 89_999)]
    assert rates == pytest.approx([1e-4, 1e-4, 1e-5, 1e-5])


def test_the_cosine_rises_and_falls_to_zero() -> None:
    settings = Settings(schedule="cosine", learning_rate=1.0)
    rates = [settings.rate(step, 1000) for step in range(1000)]
    assert rates[0] == pytest.approx(0.02)
    assert rates.index(max(rates)) == 49
    assert rates[500] == pytest.approx(0.5)
    assert rates[-1] < 1e-4


def test_variants_are_used_in_turn() -> None:
    assert [Settings(variants=3).variant(epoch) for epoch in range(7)] == [0, 1, 2, 0, 1, 2, 0]
    assert [Settings().variant(epoch) for epoch in range(3)] == [0, 1, 2]


def test_options_change_a_recipe() -> None:
    options = {"epochs": 3, "seed": 0, "batch_size": None, "workers": 4}
    chosen = choose("published", options, cached=False, device=CPU)
    assert (chosen.epochs, chosen.batch_size, chosen.schedule, chosen.jitter) == (3, 16, "step", 0)
    assert choose("default", {}, cached=False, device=CPU) == Settings()


def test_a_cache_wants_few_variants_unless_told_otherwise() -> None:
    for augmentation, count in (("none", 1), ("flip", 2), ("multiscale", 4)):
        assert choose("default", {"augmentation": augmentation}, cached=True, device=CPU).variants == count
    assert choose("default", {"variants": 0}, cached=True, device=CPU).variants == 0
    assert choose("default", {}, cached=False, device=CPU).variants == 0


def test_a_gpu_gets_half_precision_unless_told_otherwise() -> None:
    assert choose("default", {}, cached=False, device=GPU).precision == "bfloat16"
    assert choose("default", {"precision": "float32"}, cached=False, device=GPU).precision == "float32"
    assert choose("default", {}, cached=False, device=CPU).precision == "float32"


def test_the_help_tells_both_recipes() -> None:
    options = {option.name: option for option in get_command(cli.app).commands["train"].params}  # type: ignore[attr-defined]
    for field in fields(Settings):
        default, published = (getattr(settings, field.name) for settings in (Settings(), PUBLISHED))
        if field.name not in options:  # what only recipes decide
            continue
        text = options[field.name].help
        if isinstance(default, str | bool) or field.name in ("accumulate", "seed"):
            continue
        assert f"Default {default:g}" in text
        assert ("published" in text) == (default != published)
        assert default == published or f"published {published:g}." in text
