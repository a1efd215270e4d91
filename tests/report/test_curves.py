"""Curves of a training: a whole SVG of which the lines are where the numbers are, from no step at all to very many."""

import math
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

from refinebox.report import curves
from refinebox.report.curves import BINS, BOTTOM, LEFTS, SPAN, TOP

SVG = "{http://www.w3.org/2000/svg}"
Places = list[tuple[float, float]]


def epoch(number: int, before: float | None, after: float | None, averaged: float | None = None) -> dict[str, Any]:
    line = {"epoch": number, "loss": 1.0, "before": {"AP": before, "AP50": 1.0}, "after": {"AP": after}, "seconds": 2.0}
    return line | ({"averaged": {"AP": averaged}} if averaged is not None else {})


def parsed(losses: list[float], epochs: list[dict[str, Any]]) -> ElementTree.Element:
    return ElementTree.fromstring(curves.draw(losses, epochs))


def lines(svg: ElementTree.Element, style: str) -> list[Places]:
    """The corners of every line or polygon that is drawn in a style."""
    found = [mark.attrib["points"].split() for mark in svg.iter() if mark.attrib.get("class") == style]
    return [[(float(x), float(y)) for x, y in (place.split(",") for place in places)] for places in found]


def dots(svg: ElementTree.Element, style: str) -> Places:
    found = [dot.attrib for dot in svg.iter(f"{SVG}circle") if dot.attrib["class"] == style]
    return [(float(dot["cx"]), float(dot["cy"])) for dot in found]


def texts(svg: ElementTree.Element) -> list[str]:
    return [text for element in svg.iter(f"{SVG}text") for text in element.itertext()]


def height(svg: ElementTree.Element, text: str) -> float:
    """The height of the grid line that a number of the left panel's axis stands at."""
    found = [mark.attrib for mark in svg.iter(f"{SVG}text") if mark.text == text and float(mark.attrib["x"]) < LEFTS[0]]
    return float(found[0]["y"]) - 4


def test_ap_is_drawn_where_it_is_and_the_best_epoch_is_named() -> None:
    svg = parsed([1.0, 2.0], [epoch(1, 40.0, 38.0, 41.0), epoch(2, 40.0, 43.0, 42.0), epoch(3, 40.0, 42.5, 42.6)])
    (before,), (after,), (averaged,) = (lines(svg, style) for style in ("line dashed c0", "line c1", "line c2"))
    assert [x for x, _ in after] == [LEFTS[1], LEFTS[1] + SPAN / 2, LEFTS[1] + SPAN]
    assert before == [(LEFTS[1], before[0][1]), (LEFTS[1] + SPAN, before[0][1])]
    # heights are linear in AP, and grow downwards
    slope = (after[0][1] - after[1][1]) / 5
    heights = [before[0][1]] + [y for _, y in after + averaged]
    expected = [after[0][1] - slope * (ap - 38) for ap in (40.0, 38.0, 43.0, 42.5, 41.0, 42.0, 42.6)]
    assert slope > 0
    assert heights == pytest.approx(expected, abs=0.1)
    assert dots(svg, "c1") == after
    assert dots(svg, "ring c1") == [after[1]]
    assert {"best 43.0", "- - before: 40.0", "● after", "● averaged"} <= set(texts(svg))


def test_the_average_may_be_best_and_of_equals_the_first_is() -> None:
    svg = parsed([], [epoch(1, 40.0, 39.0, 41.0), epoch(2, 40.0, 39.5, 41.0)])
    assert dots(svg, "ring c2") == [dots(svg, "c2")[0]]
    assert not dots(svg, "ring c1")
    assert "● averaged" not in texts(parsed([], [epoch(1, 40.0, 39.0)]))


def test_an_epoch_without_ap_breaks_the_line() -> None:
    aps = [40.0, 41.0, None, 43.0]
    svg = parsed([], [epoch(index + 1, None, ap) for index, ap in enumerate(aps)])
    assert [len(line) for line in lines(svg, "line c1")] == [2, 1]
    assert not lines(svg, "line dashed c0")
    assert "best 43.0" in texts(svg)


def test_only_before_is_known() -> None:
    svg = parsed([], [epoch(1, 40.0, None), epoch(2, 40.0, None)])
    assert len(lines(svg, "line dashed c0")) == 1
    assert not [text for text in texts(svg) if text.startswith("best")]


@pytest.mark.parametrize(
    ("losses", "epochs", "expected"),
    [
        ([], [], {"no step is done yet", "no epoch is finished yet"}),
        ([2.5], [], {"step", "1", "no epoch is finished yet"}),
        ([0.0], [epoch(1, 40.0, 41.0)], {"step", "best 41.0", "epoch"}),
        ([2.0] * 7, [epoch(1, 0.0, 0.0)], {"● smoothed, 2 at the end", "best 0.0"}),
        ([1.0, 2.0], [epoch(1, None, None)], {"no AP: the validation images have no objects"}),
        ([5.0, 0.0, 0.0], [epoch(9, 40.0, 41.0), epoch(10, 40.0, 40.5)], {"loss", "9", "10"}),
    ],
)
def test_little_is_drawn_inside_the_panels(
    losses: list[float], epochs: list[dict[str, Any]], expected: set[str]
) -> None:
    svg = parsed(losses, epochs)
    assert expected <= set(texts(svg))
    places = [place for style in ("c0", "c1", "c2", "c3") for place in dots(svg, style)]
    for style in ("line c1", "line c2", "line c3", "line thin c3", "line dashed c0", "band c3"):
        places += [place for line in lines(svg, style) for place in line]
    assert bool(places) == bool(losses or epochs)
    assert all(TOP <= y <= BOTTOM for _, y in places)
    assert all(any(left <= x <= left + SPAN for left in LEFTS) for x, _ in places)
    assert "nan" not in curves.draw(losses, epochs)


def test_few_losses_are_drawn_one_by_one() -> None:
    svg = parsed([3.0, 1.0, 2.0], [])
    (line,) = lines(svg, "line thin c3")
    assert [x for x, _ in line] == [LEFTS[0], LEFTS[0] + SPAN / 2, LEFTS[0] + SPAN]
    assert line[2][1] == pytest.approx((line[0][1] + line[1][1]) / 2, abs=0.1)
    assert [height(svg, text) for text in ("3", "2", "1")] == pytest.approx([line[i][1] for i in (0, 2, 1)], abs=0.11)
    assert not lines(svg, "band c3")


def test_many_losses_become_few_points_between_their_extremes() -> None:
    losses = (2 + np.random.default_rng(0).uniform(-0.5, 0.5, 123_457)).tolist()
    svg = parsed(losses, [])
    (band,), (mean,), (smooth,) = (lines(svg, style) for style in ("band c3", "line thin c3", "line c3"))
    assert BINS * 0.9 < len(mean) == len(smooth) == len(band) / 2 <= BINS
    lowest, highest = band[: len(mean)], band[len(mean) :][::-1]
    assert all(low[1] > middle[1] > high[1] for low, middle, high in zip(lowest, mean, highest, strict=True))
    assert [x for x, _ in lowest] == [x for x, _ in mean] == [x for x, _ in highest]
    assert len(curves.draw(losses, [])) < 60_000
    assert "mean and range of every 309 steps" in texts(svg)


def test_a_loss_that_falls_far_has_a_logarithmic_axis() -> None:
    svg = parsed([10.0 * 0.99**step for step in range(300)], [])
    (line,) = lines(svg, "line thin c3")
    heights = np.array([y for _, y in line])
    assert np.diff(heights) == pytest.approx((heights[-1] - heights[0]) / 299, abs=0.11)  # a power is a straight line
    assert "loss, logarithmic" in texts(svg)
    assert height(svg, "5") - height(svg, "10") == pytest.approx(height(svg, "1") - height(svg, "2"), abs=0.2)


def test_a_spike_is_put_on_the_edge_instead_of_flattening_the_others() -> None:
    losses = [1.0 + 0.1 * math.sin(step) for step in range(40_000)]
    losses[20_000] = 60.0
    svg = parsed(losses, [])
    (band,) = lines(svg, "band c3")
    assert min(y for _, y in band) == TOP
    assert np.median([y for _, y in band[:BINS]]) - np.median([y for _, y in band[BINS:]]) > (BOTTOM - TOP) / 2


@pytest.mark.parametrize("steps", [1, 2, 399, 400, 401, 1200, 1201, 99_999])
def test_bins_hold_every_step_once(steps: int) -> None:
    losses = np.random.default_rng(steps).uniform(1, 2, steps)
    middles, means, lowest, highest = curves.thinned(losses)
    size = curves.bin_size(steps)
    pieces = [losses[start : start + size] for start in range(0, steps, size)]
    assert len(pieces) <= BINS
    assert means == pytest.approx([piece.mean() for piece in pieces])
    assert lowest.tolist() == [piece.min() for piece in pieces]
    assert highest.tolist() == [piece.max() for piece in pieces]
    numbers = [np.arange(start + 1, min(start + size, steps) + 1) for start in range(0, steps, size)]
    assert middles.tolist() == [number.mean() for number in numbers]


@pytest.mark.parametrize("count", [1, 2, 5, 80, 400])
def test_smoothing_is_the_mean_of_the_neighbours(count: int) -> None:
    values = np.random.default_rng(count).uniform(1, 2, count)
    reach = max(1, count // 40)
    expected = [values[place - min(place, reach) : place + min(place, reach) + 1].mean() for place in range(count)]
    assert curves.smoothed(values) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("low", "high", "smallest", "expected"),
    [
        (0.9, 3.2, 0, [1, 1.5, 2, 2.5, 3]),
        (39.7, 45.6, 0, [40, 41, 42, 43, 44, 45]),
        (1, 12, 1, [2, 4, 6, 8, 10, 12]),
        (0.5, 1.5, 1, [1]),
        (1, 3, 1, [1, 2, 3]),
        (-0.2, 0.3, 0, [-0.2, -0.1, 0, 0.1, 0.2, 0.3]),
        (1, 88_000, 1, [20_000, 40_000, 60_000, 80_000]),
    ],
)
def test_ticks_are_round(low: float, high: float, smallest: float, expected: list[float]) -> None:
    assert curves.ticks(low, high, smallest=smallest) == expected


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [(0.19, 5.1, [0.2, 0.5, 1, 2, 5]), (0.3, 2.1, [0.5, 1, 2]), (0.001, 9, [0.001, 0.01, 0.1, 1])],
)
def test_logarithmic_ticks_are_round(low: float, high: float, expected: list[float]) -> None:
    assert curves.logarithmic_ticks(low, high) == pytest.approx(expected)


def test_the_picture_stands_alone(tmp_path: Path) -> None:
    path = tmp_path / "run" / "curves.svg"
    losses, epochs = [3.0, 2.0], [epoch(1, 40.0, 41.0)]
    curves.write(path, losses, epochs)
    assert path.read_text() == curves.draw(losses, epochs)
    svg = ElementTree.parse(path).getroot()
    assert svg.tag == f"{SVG}svg"
    back = svg.find(f"{SVG}rect")
    assert back is not None
    assert back.attrib["class"] == "back"
    names = {name for element in svg.iter() for name in element.attrib}
    assert not names & {"href", "src", "onload", "onclick"}
    assert {element.tag.removeprefix(SVG) for element in svg.iter()} == {
        *("svg", "style", "rect", "text", "tspan", "line", "polyline", "circle", "title")
    }
    style = svg.findtext(f"{SVG}style") or ""
    assert "url(" not in style
    assert "@import" not in style
    used = {name for element in svg.iter() for name in element.attrib.get("class", "").split()}
    assert {name for name in used if f".{name}{{" not in style} == set()
