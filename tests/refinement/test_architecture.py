"""Architectures: what files say of them, and that the parts are what their names promise."""

from dataclasses import asdict

import pytest

from refinebox.refinement.architecture import ARCHITECTURES, PUBLISHED, SPATIAL, Architecture, from_metadata


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_a_file_gives_the_architecture_back(name: str) -> None:
    found = from_metadata({"architecture": asdict(ARCHITECTURES[name])}, "file")
    assert found == ARCHITECTURES[name]
    assert found.name == name


def test_a_file_that_names_none_is_published() -> None:
    assert from_metadata({"steps": 3}, "file") == PUBLISHED


def test_other_combinations_are_custom() -> None:
    assert Architecture(enlargement=1.5).name == "custom"
    assert Architecture() == SPATIAL


@pytest.mark.parametrize(
    ("changed", "what"),
    [
        ({"attention": 8}, "attention"),
        ({"moves": "polar"}, "moves 'polar'"),
        ({"pyramid": "pagoda"}, "pyramid 'pagoda'"),
        ({"smoothed": False}, "smoothed"),
    ],
    ids=["part", "moves", "pyramid", "a part that is gone"],
)
def test_parts_of_another_version_are_refused(changed: dict[str, object], what: str) -> None:
    with pytest.raises(ValueError, match=f"^new.safetensors holds a refiner with {what}; this version knows .*update"):
        from_metadata({"architecture": asdict(SPATIAL) | changed}, "new.safetensors")


def test_an_architecture_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^new.safetensors holds a refiner with an architecture of 'x', expected its"):
        from_metadata({"architecture": "x"}, "new.safetensors")


def test_parts_that_a_file_does_not_name_are_the_published_ones() -> None:
    """As in those of 0.2's first days, which also said that their pyramid was smoothed, as all are now."""
    parts = {"smoothed": True, "placed": True, "enlargement": 1.5, "moves": "relative", "stem": False}
    expected = Architecture(pyramid="fpn", enlargement=1.5, cells=7, blocks=3)
    assert from_metadata({"architecture": parts}, "file") == expected
