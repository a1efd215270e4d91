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
    assert Architecture(enlargement=1.25).name == "custom"
    assert Architecture() == SPATIAL


@pytest.mark.parametrize(
    ("changed", "what"), [({"attention": 8}, "attention"), ({"moves": "polar"}, "moves 'polar'")], ids=["part", "moves"]
)
def test_parts_of_a_later_version_are_refused(changed: dict[str, object], what: str) -> None:
    with pytest.raises(ValueError, match=f"^new.safetensors holds a refiner with {what}; this version knows .*update"):
        from_metadata({"architecture": asdict(SPATIAL) | changed}, "new.safetensors")


def test_a_file_that_says_no_cells_has_seven() -> None:
    """As those of 0.2's first days."""
    parts = asdict(SPATIAL)
    del parts["cells"]
    assert from_metadata({"architecture": parts}, "file").cells == 7
