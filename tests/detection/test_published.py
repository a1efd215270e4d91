"""The table of names: that it holds together, and what is shown of it."""

import importlib
import re
from pathlib import Path

import pytest

from refinebox.detection.entry import Entry, cached
from refinebox.detection.published import DETECTORS, REFINERS, place, refiner_file
from refinebox.detection.zoo import weights_path
from refinebox.files.download import home

OTHERS = {name: entry for name, entry in DETECTORS.items() if entry.bundled is None}
DOWNLOADED = [name for name, entry in OTHERS.items() if entry.file(name)]
BY_HAND = [name for name in OTHERS if name not in DOWNLOADED]
REFINED = [name for name, entry in DETECTORS.items() if entry.refiner]


@pytest.mark.parametrize("family", sorted({entry.family for entry in DETECTORS.values()}))
def test_every_family_has_an_adapter(family: str) -> None:
    assert callable(importlib.import_module(f"refinebox.adapters.{family}").build)


@pytest.mark.parametrize("name", OTHERS)
def test_addresses_and_hashes_have_the_right_form(name: str) -> None:
    entry = DETECTORS[name]
    assert re.fullmatch(r"https://[a-z.]+/\S+", entry.source)
    assert re.fullmatch(r"(|[0-9a-f]{8}|[0-9a-f]{64})", entry.sha256)
    assert entry.layout in ("authors", "detrex", "transformers", "mmdet2", "mmdet3")
    assert entry.ap is not None
    assert 30 < entry.ap < 65
    assert entry.licence


def test_hashes_in_names_of_files_are_those_of_the_table() -> None:
    """The authors of DETR and mmdetection put the beginning of the hash into the name."""
    found = {name: re.search(r"-([0-9a-f]{8})\.pth$", entry.source) for name, entry in OTHERS.items()}
    assert {name: match[1] for name, match in found.items() if match} == {
        name: entry.sha256 for name, entry in OTHERS.items() if entry.sha256
    }


@pytest.mark.parametrize("name", OTHERS)
def test_names_say_what_settings_say(name: str) -> None:
    entry = DETECTORS[name]
    starts = {"conditional_detr": ("conditional-detr", "group-detr"), "co_detr": ("co-dino", "co-deformable-detr")}
    assert name.startswith(starts.get(entry.family, entry.family.replace("_", "-")))
    assert ("dc5" in name) == ("DC5" in entry.backbone) == entry.settings.get("dilation", False)
    assert ("3pat" in name) == ("3 patterns" in entry.backbone)
    assert ("r101" in name) == ("R101" in entry.backbone)
    assert ("swin-l" in name) == ("Swin-L" in entry.backbone)
    assert ("lsj" in name) == ("square" in entry.backbone) == ("square" in entry.settings)
    for scales in (4, 5):
        assert f"{scales}scale" not in name or entry.settings["levels"] == scales


def test_only_two_detectors_have_another_temperature() -> None:
    others = [name for name, entry in DETECTORS.items() if "temperature" in entry.settings]
    assert others == ["dab-detr-r50-dc5", "dino-r50-4scale-improved"]


@pytest.mark.parametrize("name", [name for name, entry in DETECTORS.items() if "square" in entry.settings])
def test_what_lies_on_a_square_is_resized_into_it(name: str) -> None:
    entry = DETECTORS[name]
    assert entry.short_side == entry.long_side == entry.settings["square"]


def test_every_address_and_every_path_is_one_detectors() -> None:
    files = [entry.file(name) for name, entry in DETECTORS.items()]
    urls, paths = ([getattr(file, part) for file in files if file] for part in ("url", "path"))
    assert len(set(urls)) == len(set(paths)) == len(DOWNLOADED)
    assert {cached(name) for name in BY_HAND}.isdisjoint(paths)


@pytest.mark.parametrize("name", REFINED)
def test_a_refiner_makes_it_better(name: str) -> None:
    entry = DETECTORS[name]
    assert entry.ap is not None
    assert entry.refined_ap is not None
    assert entry.refined_ap > entry.ap
    file = refiner_file(name)
    assert file.url.startswith("https://")
    assert entry.refiner in file.url
    assert file.path == home() / "refiners" / f"{entry.refiner}.pth"
    assert file.sha256 == REFINERS[entry.refiner]


def test_without_a_refiner_there_is_no_refined_ap() -> None:
    assert [name for name, entry in DETECTORS.items() if entry.refined_ap is not None] == REFINED
    assert {DETECTORS[name].refiner for name in REFINED} == set(REFINERS)


def test_hashes_of_refiners_are_the_published_ones(shared: Path) -> None:
    lines = (shared / "spec/official-refiner-sha256.txt").read_text().splitlines()
    published = {line.split()[1].split("/")[0]: line.split()[0] for line in lines}
    assert {name: published[name] for name in REFINERS} == REFINERS


@pytest.mark.parametrize("name", ["nonsense", "detr-r50-dc5", "a.module:function"])
def test_no_refiner_is_published_for_others(name: str) -> None:
    expected = rf"^no refiner is published for {name}; there are some for {', '.join(REFINED)}; train one$"
    with pytest.raises(ValueError, match=expected):
        refiner_file(name)


def test_files_keep_the_ending_of_their_address() -> None:
    entry = Entry("detr", "R50", 42.0, "transformers", "https://example.org/model.safetensors", "ab")
    file = entry.file("mine")
    assert file is not None
    assert (file.url, file.sha256) == (entry.source, "ab")
    assert file.path == home() / "detectors" / "mine.safetensors"
    assert Entry("detr", "R50", 42.0, "authors", "https://example.org/page#models").file("mine") is None
    assert Entry("detr", "R50", 42.0, "authors", "bundled.safetensors").file("mine") is None


@pytest.mark.parametrize("name", [*DOWNLOADED, *BY_HAND])
def test_the_place_of_the_weights_is_told(name: str) -> None:
    entry = DETECTORS[name]
    assert place(name, entry) == ("on first use" if name in DOWNLOADED else "by hand")
    file = entry.file(name)
    path = file.path if file else cached(name)
    path.parent.mkdir(parents=True)
    path.touch()
    assert place(name, entry) == "cached"
    assert weights_path(name) == path


def test_bundled_weights_are_in_the_package() -> None:
    assert place("dab-detr-shapes", DETECTORS["dab-detr-shapes"]) == "in the package"
