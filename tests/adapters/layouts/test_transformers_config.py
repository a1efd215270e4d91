"""What a configuration says, written as transformers writes it now and as it wrote it years ago."""

from typing import Any

import pytest
from refinebox.adapters.layouts.transformers_config import read

from refinebox.data.input_format import InputFormat
from refinebox.detection.profile import Profile

PROFILE = Profile("mine", "dab_detr", settings={"temperature": 10.0}, input=InputFormat(short_side=640, long_side=1000))


@pytest.mark.parametrize(
    ("config", "settings"),
    [
        ({}, {"temperature": 10.0}),
        ({"encoder_attention_heads": 4}, {"temperature": 10.0, "heads": 4}),
        ({"temperature_height": 20, "temperature_width": 20}, {"temperature": 20.0}),
        ({"dilation": True}, {"temperature": 10.0, "dilation": True}),
        ({"dilation": False}, {"temperature": 10.0}),
        ({"backbone_config": {"output_stride": 16}}, {"temperature": 10.0, "dilation": True}),
        ({"backbone_config": {"output_stride": None}}, {"temperature": 10.0}),
        ({"backbone_kwargs": {"output_stride": 16}, "backbone_config": None}, {"temperature": 10.0, "dilation": True}),
        ({"backbone_kwargs": None, "backbone_config": None}, {"temperature": 10.0}),
    ],
)
def test_settings_are_those_of_the_configuration(config: dict[str, Any], settings: dict[str, Any]) -> None:
    assert read(config, PROFILE).settings == settings
    assert PROFILE.settings == {"temperature": 10.0}


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({}, (640, 1000)),
        ({"size": {"shortest_edge": 480, "longest_edge": 600}}, (480, 600)),
        ({"size": {"shortest_edge": 480}}, (480, 1000)),
        ({"size": 800, "max_size": 1333}, (800, 1333)),
        ({"size": 800}, (800, 1000)),
        ({"size": None}, (640, 1000)),
    ],
)
def test_the_input_size_is_that_of_the_preprocessor(config: dict[str, Any], expected: tuple[int, int]) -> None:
    profile = read(config, PROFILE)
    assert (profile.input.short_side, profile.input.long_side) == expected


def test_names_that_say_nothing_are_left_out() -> None:
    names = {"0": "N/A", "1": "person", "2": "LABEL_2", "3": "LABEL_2"}
    assert read({"id2label": names}, PROFILE).category_names == {1: "person", 3: "LABEL_2"}
    assert read({}, PROFILE).category_names == {}


def test_everything_else_stays() -> None:
    profile = read({"id2label": {"0": "cat"}}, PROFILE)
    assert (profile.name, profile.family, profile.layout) == (PROFILE.name, PROFILE.family, PROFILE.layout)


def test_learned_positions_are_refused() -> None:
    expected = r"^mine has learned position embeddings, expected sine; this kind is not supported$"
    with pytest.raises(ValueError, match=expected):
        read({"position_embedding_type": "learned"}, PROFILE)
    assert read({"position_embedding_type": "sine"}, PROFILE) == read({}, PROFILE)


@pytest.mark.parametrize(
    "config",
    [
        {"id2label": ["a"]},
        {"id2label": {"x": "y"}},
        {"encoder_attention_heads": "x"},
        {"temperature_height": "x"},
        {"size": "x"},
    ],
)
def test_a_malformed_configuration_is_one_line(config: dict[str, Any]) -> None:
    expected = r"^the config\.json of mine is malformed \(.*\); download it again$"
    with pytest.raises(ValueError, match=expected):
        read(config, PROFILE)
