"""The data's categories beside the detector's."""

from dataclasses import replace

import pytest

from refinebox.data import shapes
from refinebox.data.annotations import CocoData
from refinebox.detection.detector import Detector
from refinebox.evaluation.link import Link


def with_categories(validation: CocoData, categories: dict[int, str]) -> CocoData:
    return replace(validation, categories=categories, annotations=[])


def test_a_link_by_id_maps_ids_to_columns(detector: Detector, validation: CocoData) -> None:
    link = Link.between(detector, with_categories(validation, {4: "anything", 2: "else"}), "id")
    assert link == Link(data_ids={4: 4, 2: 2}, columns={4: 3, 2: 1}, width=6)


def test_a_link_by_name_maps_names_to_columns(detector: Detector, validation: CocoData) -> None:
    link = Link.between(detector, with_categories(validation, {40: "Star", 7: "ellipse"}), "name")
    assert link == Link(data_ids={4: 40, 1: 7}, columns={40: 3, 7: 0}, width=6)


def test_a_link_checks_ids_and_names_unless_told_otherwise(detector: Detector, validation: CocoData) -> None:
    names = dict(enumerate(shapes.CATEGORIES, start=1))
    assert Link.between(detector, with_categories(validation, names)).columns == {i: i - 1 for i in names}
    with pytest.raises(ValueError, match=r"the detector does not know 1 star: .*; pass --categories name"):
        Link.between(detector, with_categories(validation, {1: "star", 2: "rectangle"}))


def test_a_link_by_order_takes_the_columns_in_turn(detector: Detector, validation: CocoData) -> None:
    ids = [90, 5, 7, 30, 1, 8]
    link = Link.between(detector, with_categories(validation, {i: f"thing {i}" for i in ids}), "order")
    assert link.columns == {1: 0, 5: 1, 7: 2, 8: 3, 30: 4, 90: 5}
    assert link.data_ids == {1: 1, 2: 5, 3: 7, 4: 8, 5: 30, 6: 90}


def test_the_columns_are_called_what_the_data_calls_them(detector: Detector, validation: CocoData) -> None:
    data = with_categories(validation, {i: f"thing {i}" for i in (90, 5, 7, 30, 1, 8)})
    named = [{"id": i, "name": f"thing {i}"} for i in (1, 5, 7, 8, 30, 90)]
    assert Link.between(detector, data, "order").categories(data) == named
    by_name = with_categories(validation, dict(zip((60, 50, 40, 30, 20, 10), shapes.CATEGORIES, strict=True)))
    ids = [category["id"] for category in Link.between(detector, by_name, "name").categories(by_name)]
    assert ids == [60, 50, 40, 30, 20, 10]


@pytest.mark.parametrize("ids", [(1, 2, 3), (2, 3, 4), (6,)])
def test_columns_without_data_leave_the_names_open(
    ids: tuple[int, ...], detector: Detector, validation: CocoData
) -> None:
    data = with_categories(validation, {i: f"thing {i}" for i in ids})
    assert Link.between(detector, data, "id").categories(data) == []
