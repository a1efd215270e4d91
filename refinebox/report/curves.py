"""The curves of a training in one SVG that stands alone: the loss of every step, and AP before and after by epoch."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from refinebox.files import checkpoint
from refinebox.report.charts import Points

WIDTH, HEIGHT = 980, 380
TOP, BOTTOM, SPAN = 72, 322, 400  # of a panel: its upper and lower edge and its width
LEFTS = 60, 552  # of the panels
BINS = 400  # a panel shows no more points than it has pixels
COLOURS = {"before": "c0", "after": "c1", "averaged": "c2"}  # as on the report's page; the loss is c3
Floats = NDArray[np.float64]
RULES = (
    "svg{{color-scheme:light dark;font:12px system-ui,sans-serif}}text{{fill:{soft}}}.value{{fill:{ink}}}"
    ".back{{fill:{card};stroke:{grid}}}.grid{{stroke:{grid}}}"
    ".line{{fill:none;stroke-width:2.5;stroke-linejoin:round}}.thin{{stroke-width:1;stroke-opacity:.45}}"
    ".heading{{font-size:15px;font-weight:600}}.mark{{font-weight:600;paint-order:stroke;stroke:{card};stroke-width:4}}"
    ".dashed{{stroke-width:2;stroke-dasharray:6 4}}.ring{{fill:none;stroke-width:2}}.band{{fill-opacity:.18}}"
)
LIGHT = {"card": "#ffffff", "ink": "#1c2430", "soft": "#667085", "grid": "#e3e7ee"}
DARK = {"card": "#181e28", "ink": "#e6eaf1", "soft": "#97a3b6", "grid": "#2a3342"}
SERIES = ("#e07a10", "#12805c", "#1f6feb", "#8250df"), ("#ffa94d", "#3fcf9a", "#6cb0ff", "#b794f6")


def draw(losses: Sequence[float], epochs: Sequence[Mapping[str, Any]]) -> str:
    """An SVG with its own background and colours, light or dark as the viewer prefers; the same for the same input.

    Args:
        losses: the total loss of every step of the optimizer so far, finite; may be empty.
        epochs: the lines of ``metrics.jsonl``; AP under ``before``, ``after`` and perhaps ``averaged``, points or None.
    """
    label = f"Loss of {len(losses):,} steps and AP of {len(epochs):,} epochs"
    parts = [
        f'<svg role="img" aria-label="{label}" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" '
        f'xmlns="http://www.w3.org/2000/svg"><style>{_style()}</style>',
        f'<rect class="back" x="0.5" y="0.5" width="{WIDTH - 1}" height="{HEIGHT - 1}" rx="10"/>',
        *_loss_panel(np.asarray(losses, dtype=np.float64)),
        *_ap_panel(epochs),
    ]
    return "\n".join(parts) + "</svg>\n"


def write(path: Path, losses: Sequence[float], epochs: Sequence[Mapping[str, Any]]) -> None:
    """Writes what :func:`draw` draws, whole or not at all.

    Raises:
        OSError: the folder cannot be written or the disk is full.
    """
    checkpoint.write_bytes(path, draw(losses, epochs).encode())


def thinned(losses: Floats) -> tuple[Floats, Floats, Floats, Floats]:
    """``[bins]`` each: middle step (from 1), mean, lowest and highest loss of every bin of neighbouring steps."""
    starts = np.arange(0, len(losses), bin_size(len(losses)))
    ends = np.append(starts[1:], len(losses))
    means = np.add.reduceat(losses, starts) / (ends - starts)
    return (starts + 1 + ends) / 2, means, np.minimum.reduceat(losses, starts), np.maximum.reduceat(losses, starts)


def bin_size(steps: int) -> int:
    """How many steps share a bin so that there are at most ``BINS``; the last bin may have fewer."""
    return math.ceil(steps / BINS)


def smoothed(values: Floats) -> Floats:
    """Each value's mean with its neighbours, a fortieth of all values on either side.

    Fewer on both sides near the start, where losses fall fast; at the end only those before, so that it is smooth too.
    """
    sums = np.concatenate([[0.0], values.cumsum()])
    place = np.arange(len(values))
    before = np.minimum(place, max(1, len(values) // 40))
    behind = np.minimum(before, len(values) - 1 - place)
    return np.asarray((sums[place + behind + 1] - sums[place - before]) / (before + behind + 1))


def ticks(low: float, high: float, *, smallest: float = 0.0) -> list[float]:
    """Up to seven round numbers from ``low`` to ``high`` at equal distances, which are at least ``smallest``."""
    rough = (high - low) / 6
    power = 10.0 ** math.floor(math.log10(rough))
    step = max(smallest, next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * (1 - 1e-9)))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(index * step, 10) for index in range(first, last + 1)]


def logarithmic_ticks(low: float, high: float) -> list[float]:
    """1, 2 and 5 times the powers of ten from ``low`` to ``high``; the powers alone over three decades and more."""
    factors = (1, 2, 5) if high < 1000 * low else (1,)
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    numbers = (factor * 10.0**power for power in powers for factor in factors)
    return [number for number in numbers if low * (1 - 1e-9) <= number <= high * (1 + 1e-9)]


@dataclass(frozen=True)
class Panel:
    """A part of the picture: its left edge, and the numbers at its left and right, lower and upper edges."""

    left: float
    x: tuple[float, float]
    y: tuple[float, float]
    logarithmic: bool = False

    def across(self, x: float) -> float:
        return self.left + SPAN * (x - self.x[0]) / (self.x[1] - self.x[0])

    def up(self, y: float) -> float:
        """What lies outside is put on the edge."""
        low, high = self.y
        y = min(max(y, low), high)
        fraction = math.log(y / low) / math.log(high / low) if self.logarithmic else (y - low) / (high - low)
        return BOTTOM - fraction * (BOTTOM - TOP)

    def line(self, points: Points, style: str, shape: str = "polyline") -> str:
        places = " ".join(f"{self.across(x):.1f},{self.up(y):.1f}" for x, y in points)
        return f'<{shape} class="{style}" points="{places}"/>'

    def dot(self, x: float, y: float, style: str, radius: float, title: str) -> str:
        place = f'cx="{self.across(x):.1f}" cy="{self.up(y):.1f}" r="{radius}"'
        return f'<circle class="{style}" {place}><title>{escape(title)}</title></circle>'

    def axes(self, x_label: str, y_label: str) -> list[str]:
        parts = []
        for y in logarithmic_ticks(*self.y) if self.logarithmic else ticks(*self.y):
            up = self.up(y)
            parts.append(f'<line class="grid" x1="{self.left}" x2="{self.left + SPAN}" y1="{up:.1f}" y2="{up:.1f}"/>')
            parts.append(_text(self.left - 8, up + 4, f"{y:g}", anchor="end"))
        for x in ticks(*self.x, smallest=1):
            parts.append(_text(self.across(x), BOTTOM + 18, f"{x:,.0f}", anchor="middle"))
        parts.append(_text(self.left + SPAN / 2, BOTTOM + 40, x_label, anchor="middle"))
        middle = (TOP + BOTTOM) / 2
        turned = f' transform="rotate(-90 {self.left - 43} {middle})"'
        return [*parts, _text(self.left - 43, middle, y_label, anchor="middle", more=turned)]


def _loss_panel(losses: Floats) -> list[str]:
    heading = _text(LEFTS[0], 28, "Loss of every step", style="value heading")
    if not len(losses):
        return [heading, _nothing(LEFTS[0], "no step is done yet")]
    steps, means, lowest, highest = thinned(losses)
    smooth = smoothed(means)
    logarithmic = bool(means.min() > 0 and means.max() > 6 * means.min())
    low, high = min(np.quantile(lowest, 0.01), smooth.min()), max(np.quantile(highest, 0.99), smooth.max())
    if logarithmic:  # rare steps far below the others, perhaps without objects, would flatten the curve
        low = max(low, means.min() / 2)
    edges = (low / 1.1, high * 1.1) if logarithmic else _widened(low, high, max(0.1 * abs(high), 1e-6))
    panel = Panel(LEFTS[0], (1, len(losses)) if len(losses) > 1 else (0.5, 1.5), edges, logarithmic)
    parts = [heading, *panel.axes("step", "loss, logarithmic" if logarithmic else "loss")]
    names = [("c3", f"● smoothed, {smooth[-1]:.3g} at the end")]
    if len(losses) == 1:
        return [*parts, panel.dot(1, losses[0], "c3", 4, f"step 1: {losses[0]:.4g}")]
    if len(losses) > BINS:
        corners = [*zip(steps, lowest, strict=True), *reversed(list(zip(steps, highest, strict=True)))]
        parts.append(panel.line(corners, "band c3", "polygon"))
        names.append(("", f"mean and range of every {bin_size(len(losses)):,} steps"))
    else:
        names.append(("", "each step"))
    parts.append(panel.line(list(zip(steps, means, strict=True)), "line thin c3"))
    parts.append(panel.line(list(zip(steps, smooth, strict=True)), "line c3"))
    return [*parts, _legend(LEFTS[0], names)]


def _ap_panel(epochs: Sequence[Mapping[str, Any]]) -> list[str]:
    heading = _text(LEFTS[1], 28, "AP on the validation images", style="value heading")
    series = {name: [(line["epoch"], (line.get(name) or {}).get("AP")) for line in epochs] for name in COLOURS}
    known = {name: [(x, y) for x, y in points if y is not None] for name, points in series.items()}
    values = [y for points in known.values() for _, y in points]
    if not values:
        reason = "no epoch is finished yet" if not epochs else "no AP: the validation images have no objects"
        return [heading, _nothing(LEFTS[1], reason)]
    x = epochs[0]["epoch"], epochs[-1]["epoch"]
    panel = Panel(LEFTS[1], x if x[0] < x[1] else (x[0] - 0.5, x[0] + 0.5), _widened(min(values), max(values), 1.0))
    parts, names = [heading, *panel.axes("epoch", "AP, points")], []
    before = known["before"][-1][1] if known["before"] else None
    if before is not None:
        parts.append(panel.line([(panel.x[0], before), (panel.x[1], before)], "line dashed c0"))
        names.append(("c0", f"- - before: {before:.1f}"))
    for name in ("after", "averaged"):
        if known[name]:
            parts += _curve(panel, name, series[name])
            names.append((COLOURS[name], f"● {name}"))
    return [*parts, *_best(panel, known), _legend(LEFTS[1], names)]


def _curve(panel: Panel, name: str, points: Sequence[tuple[int, float | None]]) -> list[str]:
    """A line with a point for each epoch; it is broken where there is no AP."""
    colour, radius = COLOURS[name], 3 if len(points) <= 40 else 1.5
    stretches = [list(group) for known, group in groupby(points, lambda point: point[1] is not None) if known]
    parts = []
    for stretch in stretches:
        known = [(x, y) for x, y in stretch if y is not None]
        parts.append(panel.line(known, f"line {colour}"))
        parts += [panel.dot(x, y, colour, radius, f"{name}, epoch {x}: {y:.1f}") for x, y in known]
    return parts


def _best(panel: Panel, known: Mapping[str, Points]) -> list[str]:
    """A ring around the highest AP, the earliest of equals, and its value above; no gain, for these images chose it."""
    found = [(y, -x, name) for name in ("after", "averaged") for x, y in known[name]]
    if not found:
        return []
    y, x, name = max(found, key=lambda item: item[:2])
    left, up = panel.across(-x), panel.up(y)
    fraction = (left - panel.left) / SPAN
    anchor = "end" if fraction > 0.8 else "start" if fraction < 0.2 else "middle"
    title = f"best: {name}, epoch {-x:.0f}"
    return [
        panel.dot(-x, y, f"ring {COLOURS[name]}", 6, title),
        _text(left, up - 13, f"best {y:.1f}", style="value mark", anchor=anchor),
    ]


def _widened(low: float, high: float, smallest: float) -> tuple[float, float]:
    """The span with room at both ends, more above for a label; the room is that of a span of at least ``smallest``."""
    span = max(high - low, smallest)
    return low - 0.1 * span, high + 0.2 * span


def _nothing(left: float, reason: str) -> str:
    return _text(left + SPAN / 2, (TOP + BOTTOM) / 2, reason, anchor="middle")


def _legend(left: float, names: Sequence[tuple[str, str]]) -> str:
    items = (
        f'<tspan class="{style}" dx="{14 if index else 0}">{escape(name)}</tspan>'
        for index, (style, name) in enumerate(names)
    )
    return f'<text x="{left}" y="50">{"".join(items)}</text>'


def _text(x: float, y: float, text: str, *, style: str = "", anchor: str = "start", more: str = "") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" class="{style}" text-anchor="{anchor}"{more}>{escape(text)}</text>'


def _style() -> str:
    """Plain rules without variables, because not every viewer of SVG knows those."""

    def rules(theme: Mapping[str, str], series: Sequence[str]) -> str:
        colours = "".join(
            f".c{index}{{fill:{colour}}}.line.c{index},.ring.c{index}{{fill:none;stroke:{colour}}}"
            for index, colour in enumerate(series)
        )
        return RULES.format(**theme) + colours

    return f"{rules(LIGHT, SERIES[0])}@media(prefers-color-scheme:dark){{{rules(DARK, SERIES[1])}}}"
