from collections.abc import Mapping

import pytest
from torchvision.models.detection import FasterRCNN_ResNet50_FPN_Weights

from refinebox.data.categories import COCO_NAMES, Matching, ids_of, match_categories


def test_coco_names_are_those_of_torchvision() -> None:
    names = FasterRCNN_ResNet50_FPN_Weights.DEFAULT.meta["categories"]
    assert {index: name for index, name in enumerate(names) if name not in ("__background__", "N/A")} == COCO_NAMES


def test_coco_has_80_names_up_to_id_90() -> None:
    assert (len(COCO_NAMES), min(COCO_NAMES), max(COCO_NAMES)) == (80, 1, 90)


@pytest.mark.parametrize(
    ("data", "detector", "by", "expected"),
    [
        ({1: "cat", 2: "dog"}, {1: "cat", 2: "dog"}, "check", {1: 1, 2: 2}),
        ({2: "dog"}, {1: "cat", 2: "dog"}, "check", {2: 2}),
        ({1: " Traffic_Light "}, {1: "traffic light"}, "check", {1: 1}),
        ({}, {1: "cat"}, "check", {}),
        ({2: "anything"}, {1: "cat", 2: "dog"}, "id", {2: 2}),
        ({7: "dog", 8: "cat"}, {1: "cat", 2: "dog"}, "name", {7: 2, 8: 1}),
        ({7: "HOT_dog"}, {58: "hot dog"}, "name", {7: 58}),
        ({9: "cow", 3: "car", 7: "dog"}, {0: "a", 1: "b", 2: "c"}, "order", {3: 0, 7: 1, 9: 2}),
        ({}, {}, "order", {}),
    ],
)
def test_categories_are_matched(
    data: Mapping[int, str], detector: Mapping[int, str], by: Matching, expected: Mapping[int, int]
) -> None:
    assert match_categories(data, tuple(detector), detector, by) == expected


def test_check_is_the_default() -> None:
    with pytest.raises(ValueError, match="does not know 1 cat"):
        match_categories({1: "cat"}, (1,), {1: "dog"})


def test_ids_suffice_for_a_detector_without_names() -> None:
    assert match_categories({3: "car"}, (1, 2, 3), {}) == {3: 3}


@pytest.mark.parametrize("by", ["check", "id"])
def test_an_id_the_detector_lacks_is_an_error(by: Matching) -> None:
    with pytest.raises(ValueError, match="does not know 5 cow: the data has 1 cat, 5 cow, the detector 1 cat, 2 dog"):
        match_categories({1: "cat", 5: "cow"}, (1, 2), {1: "cat", 2: "dog"}, by)


def test_the_error_suggests_the_other_ways_to_match() -> None:
    expected = "; pass --categories name to match by name, id to trust the ids, or order if it was trained on these$"
    with pytest.raises(ValueError, match=expected):
        match_categories({1: "dog", 2: "cat"}, (1, 2), {1: "cat", 2: "dog"})
    with pytest.raises(ValueError, match=expected):
        match_categories({3: "dog"}, (1, 2), {1: "cat", 2: "dog"}, "id")


def test_a_name_the_detector_lacks_is_an_error_without_a_hint() -> None:
    expected = r"does not know 5 cow: the data has 5 cow, the detector 1 cat; 0 of 1 names .*; name or train a detector"
    with pytest.raises(ValueError, match=expected):
        match_categories({5: "cow"}, (1,), {1: "cat"}, "name")


@pytest.mark.parametrize("data", [{1: "cow"}, {1: "cow", 2: "cat", 3: "dog"}], ids=["fewer", "more"])
def test_order_demands_as_many_categories(data: Mapping[int, str]) -> None:
    listed = ", ".join(f"{category_id} {name}" for category_id, name in data.items())
    with pytest.raises(
        ValueError,
        match=rf"^the detector does not know {listed}: the data has {listed}, the detector 0 \?, 1 \?; name or train",
    ):
        match_categories(data, (0, 1), {}, "order")


def test_ids_without_names_are_shown_with_a_question_mark() -> None:
    with pytest.raises(ValueError, match=r"the detector 1 \?, 2 \?"):
        match_categories({3: "cow"}, (1, 2), {})


def test_names_of_coco_in_other_words_are_the_same() -> None:
    others = {1: "Aeroplane", 2: "sofa", 3: "TVmonitor", 4: "potted_plant"}
    names = {10: "airplane", 20: "couch", 30: "tv", 40: "potted plant"}
    assert match_categories(names, (1, 2, 3, 4), others, "name") == {10: 1, 20: 2, 30: 3, 40: 4}


def test_cocos_names_get_cocos_ids() -> None:
    names = list(COCO_NAMES.values())
    assert ids_of(names) == tuple(COCO_NAMES)
    assert ids_of([{"couch": "sofa", "motorcycle": "motorbike"}.get(name, name) for name in names]) == tuple(COCO_NAMES)
    assert ids_of(names[::-1]) == tuple(range(80))
    assert ids_of(["table", "table rotated"]) == (0, 1)
