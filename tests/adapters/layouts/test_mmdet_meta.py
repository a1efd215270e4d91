"""What mmdetection's checkpoints say beside their tensors."""

from typing import Any

import pytest
from refinebox.adapters.layouts.mmdet_meta import names_in, read

from refinebox.detection.profile import Profile

PROFILE = Profile("mine", "ddq", settings={"levels": 4})
VERSION_3 = """
auto_scale_lr = dict(base_batch_size=16)
model = dict(
    backbone=dict(depth=50, type='ResNet'),
    bbox_head=dict(num_classes=3, type='DDQDETRHead'),
    num_queries=150,
    positional_encoding=dict(normalize=True, num_feats=128, offset=-0.5),
    type='DDQDETR')
optimizer = OptimWrapper(lr=variable)
"""
VERSION_2 = """
num_dec_layer = 6
model = dict(type='CoDETR', query_head=dict(num_query=70, positional_encoding=dict(temperature=20)), bbox_head=[1])
"""


@pytest.mark.parametrize(
    ("meta", "names"),
    [
        ({"dataset_meta": {"classes": ("cat", "dog"), "palette": None}}, ("cat", "dog")),
        ({"dataset_meta": {"CLASSES": ["cat", "dog"]}}, ("cat", "dog")),
        ({"CLASSES": ("cat",)}, ("cat",)),
        ({"CLASSES": "cat"}, ("cat",)),
        ({"dataset_meta": {}}, ()),
        ({}, ()),
    ],
)
def test_names_of_both_versions(meta: dict[str, Any], names: tuple[str, ...]) -> None:
    assert names_in(meta) == names


def test_the_configuration_of_version_3_goes_before_the_name() -> None:
    settings = {"levels": 4, "queries": 150, "temperature": 10000.0, "offset": -0.5}
    assert read({"cfg": VERSION_3}, PROFILE).settings == settings


def test_the_configuration_of_version_2_says_it_in_the_head() -> None:
    settings = {"levels": 4, "queries": 70, "temperature": 20.0, "offset": 0.0}
    assert read({"config": VERSION_2}, PROFILE).settings == settings


@pytest.mark.parametrize("text", [None, "", "model = ", "model = build()", "model = 3", "other = dict(num_queries=3)"])
def test_what_says_nothing_changes_nothing(text: str | None) -> None:
    assert read({"cfg": text}, PROFILE) == PROFILE
