"""Charts as inline SVG. Colours are classes that the page's style gives a light and a dark value."""

import math
from collections.abc import Mapping, Sequence
from html import escape

WIDTH, HEIGHT = 440, 300
LEFT, RIGHT, TOP, BOTTOM = 40, 12, 24, 40  # margins
Points = Sequence[tuple[float, float]]


def lines(series: Mapping[str, Points], *, x_label: str, y_label: str, y_top: float = 100.0) -> str:
    """A line for each series of (x, y), in the order of the colours; y runs from 0 to ``y_top``."""
    low = min(x for points in series.values() for x, _ in points)
    high = max(x for points in series.values() for x, _ in points)
    ticks = [(low + (high - low) * step / 3, f"{low + (high - low) * step / 3:.2f}") for step in range(4)]
    parts = _axes([((x - low) / (high - low or 1), text) for x, text in ticks], y_top, x_label, y_label)
    for index, (name, points) in enumerate(series.items()):
        places = [(_across((x - low) / (high - low or 1)), _up(y / y_top)) for x, y in points]
        parts.append(f'<polyline class="line c{index}" points="{" ".join(f"{x:.1f},{y:.1f}" for x, y in places)}"/>')
        for (left, up), (x, y) in zip(places, points, strict=True):
            title = f"<title>{escape(name)}: {y:.1f} at {x:.2f}</title>"
            parts.append(f'<circle class="dot c{index}" cx="{left:.1f}" cy="{up:.1f}" r="3">{title}</circle>')
    return _svg(parts, HEIGHT, f"{y_label} against {x_label}") + legend(list(series))


def histogram(series: Mapping[str, Sequence[int]], edges: Sequence[float], *, x_label: str, y_label: str) -> str:
    """Counts between ``edges`` side by side, one colour for each series."""
    top = _round_up(max(count for counts in series.values() for count in counts))
    span = edges[-1] - edges[0]
    ticks = [((edge - edges[0]) / span, f"{edge:.1f}") for edge in edges[::2]]
    parts = _axes(ticks, top, x_label, y_label)
    slot = (WIDTH - LEFT - RIGHT) / (len(edges) - 1)
    width = (slot - 3) / len(series)
    for index, (name, counts) in enumerate(series.items()):
        for place, count in enumerate(counts):
            x, y = LEFT + slot * place + 1.5 + width * index, _up(count / top)
            parts.append(
                f'<rect class="bar c{index}" x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{_up(0) - y:.1f}">'
                f"<title>{escape(name)}: {count} from {edges[place]:.2f} to {edges[place + 1]:.2f}</title></rect>"
            )
    return _svg(parts, HEIGHT, f"{y_label} against {x_label}") + legend(list(series))


def bars(values: Sequence[tuple[str, float]], *, label: str, row: int = 24) -> str:
    """Horizontal bars from zero, one for each (name, value), gains to the right and losses to the left."""
    names, right = 150, 56  # room for the names and for the values
    low, high = min(0.0, *(value for _, value in values)), max(1e-9, *(value for _, value in values))
    scale = (WIDTH - names - right - (right if low < 0 else 0)) / (high - low)
    zero = names + (right if low < 0 else 0) - low * scale
    parts = []
    for index, (name, value) in enumerate(values):
        y, x, width = index * row + 4, zero + min(0.0, value * scale), abs(value * scale)
        anchor, end = ("start", x + width + 4) if value >= 0 else ("end", x - 4)
        short = name if len(name) <= 20 else name[:19] + "…"
        parts += [
            f'<text x="{names - 8}" y="{y + 12}" text-anchor="end">{escape(short)}<title>{escape(name)}</title></text>',
            f'<rect class="bar {"gain" if value >= 0 else "loss"}" x="{x:.1f}" y="{y}" width="{width:.1f}" '
            f'height="{row - 8}"/>',
            f'<text class="value" x="{end:.1f}" y="{y + 12}" text-anchor="{anchor}">{value:+.1f}</text>',
        ]
    return _svg(parts, len(values) * row + 4, label)


def legend(names: Sequence[str]) -> str:
    """The names of the series beside their colours; none for a single one."""
    if len(names) < 2:
        return ""
    items = (f'<span><i class="c{index}"></i>{escape(name)}</span>' for index, name in enumerate(names))
    return f'<p class="legend">{"".join(items)}</p>'


def _round_up(value: float) -> float:
    """The next number that four grid lines divide well."""
    step = 10.0 ** math.floor(math.log10(max(value, 4) / 4))
    return next(4 * step * factor for factor in (1, 2, 3, 4, 5, 10) if 4 * step * factor >= value)


def _across(fraction: float) -> float:
    return LEFT + fraction * (WIDTH - LEFT - RIGHT)


def _up(fraction: float) -> float:
    return HEIGHT - BOTTOM - fraction * (HEIGHT - TOP - BOTTOM)


def _axes(ticks: Sequence[tuple[float, str]], top: float, x_label: str, y_label: str) -> list[str]:
    parts = []
    for step in range(5):
        y = _up(step / 4)
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{top * step / 4:.0f}</text>')
    for fraction, text in ticks:
        x = _across(fraction)
        parts.append(f'<text x="{x:.1f}" y="{HEIGHT - BOTTOM + 16}" text-anchor="middle">{text}</text>')
    parts.append(f'<text x="{_across(0.5):.1f}" y="{HEIGHT - 6}" text-anchor="middle">{escape(x_label)}</text>')
    parts.append(f'<text x="{LEFT}" y="{TOP - 10}" class="value">{escape(y_label)}</text>')
    return parts


def _svg(parts: Sequence[str], height: int, label: str) -> str:
    return (
        f'<svg role="img" aria-label="{escape(label)}" viewBox="0 0 {WIDTH} {height}" '
        f'xmlns="http://www.w3.org/2000/svg">{"".join(parts)}</svg>'
    )
