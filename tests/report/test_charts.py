"""Charts that are well-formed, and of which the marks are where the numbers are."""

import itertools
import re
from xml.etree import ElementTree

import pytest

from refinebox.report import charts

SVG = "{http://www.w3.org/2000/svg}"


def parsed(chart: str) -> ElementTree.Element:
    """The SVG alone, without the legend behind it."""
    return ElementTree.fromstring(chart.partition("</svg>")[0] + "</svg>")


def numbers(element: ElementTree.Element, *names: str) -> list[float]:
    return [float(element.attrib[name]) for name in names]


def test_lines_rise_with_their_values() -> None:
    chart = charts.lines({"a <b>": [(0.5, 0.0), (0.7, 50.0), (0.95, 100.0)]}, x_label="IoU", y_label="AP")
    dots = [numbers(dot, "cx", "cy") for dot in parsed(chart).iter(f"{SVG}circle")]
    (left, low), (_, middle), (right, high) = dots
    assert left == charts.LEFT
    assert right == charts.WIDTH - charts.RIGHT
    assert (low, high) == (charts.HEIGHT - charts.BOTTOM, charts.TOP)
    assert middle == pytest.approx((low + high) / 2)
    assert "a &lt;b&gt;: 50.0 at 0.70" in chart
    assert 'class="legend"' not in chart


def test_several_series_have_a_legend_and_a_colour_each() -> None:
    chart = charts.lines({"one": [(0, 1.0), (1, 2.0)], "two & more": [(0, 3.0), (1, 4.0)]}, x_label="", y_label="")
    assert [line.attrib["class"] for line in parsed(chart).iter(f"{SVG}polyline")] == ["line c0", "line c1"]
    assert re.findall(r'<i class="(c\d)"></i>([^<]*)', chart) == [("c0", "one"), ("c1", "two &amp; more")]


def test_columns_are_as_high_as_their_counts() -> None:
    chart = charts.histogram({"a": [0, 10, 40], "b": [20, 20, 30]}, [0.1, 0.4, 0.7, 1.0], x_label="", y_label="")
    columns = [numbers(bar, "height", "x", "width") for bar in parsed(chart).iter(f"{SVG}rect")]
    full = charts.HEIGHT - charts.TOP - charts.BOTTOM
    assert [height for height, *_ in columns] == pytest.approx(
        [0, full / 4, full, full / 2, full / 2, full * 0.75], abs=0.1
    )
    spans = sorted((x, x + width) for _, x, width in columns)
    assert all(end <= start + 0.11 for (_, end), (start, _) in itertools.pairwise(spans))


@pytest.mark.parametrize(("value", "expected"), [(0, 4), (3, 4), (4, 4), (5, 8), (121, 160), (999, 1200), (1000, 1200)])
def test_the_axis_ends_at_a_round_number(value: float, expected: float) -> None:
    assert charts._round_up(value) == expected


@pytest.mark.parametrize("values", [[3.0, -6.0], [3.0, 1.5], [-3.0, -1.0], [0.0, 0.0]])
def test_bars_are_as_long_as_their_values_and_stay_inside(values: list[float]) -> None:
    chart = charts.bars([(f"class {value}", value) for value in values], label="gain")
    bars = [(numbers(bar, "x", "width"), bar.attrib["class"]) for bar in parsed(chart).iter(f"{SVG}rect")]
    widths = [width for (_, width), _ in bars]
    assert widths[0] * abs(values[1]) == pytest.approx(widths[1] * abs(values[0]), abs=1)
    assert [kind for _, kind in bars] == [f"bar {'gain' if value >= 0 else 'loss'}" for value in values]
    assert all(x >= 150 and x + width <= charts.WIDTH - 50 for (x, width), _ in bars)
    assert [text.text for text in parsed(chart).iter(f"{SVG}text") if text.attrib.get("class") == "value"] == [
        f"{value:+.1f}" for value in values
    ]


def test_long_names_are_cut_but_told() -> None:
    chart = charts.bars([("a very long name of a category", 1.0)], label="gain")
    assert "a very long name of…<title>a very long name of a category</title>" in chart
