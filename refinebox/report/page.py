"""The report of an oracle analysis: one HTML file that needs nothing else, on a phone as on a large screen."""

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from importlib.resources import files
from typing import Any

import numpy as np

from refinebox.analysis.analysis import Analysis
from refinebox.analysis.gains import Gain, Placement, image_gains, place
from refinebox.analysis.tide import MEANINGS
from refinebox.evaluation.evaluator import Metrics
from refinebox.evaluation.overlaps import Objects
from refinebox.report import charts, gallery, tables
from refinebox.report.gallery import Drawn
from refinebox.report.headline import headline

PICTURES = 20  # that gain, and as many that lose
CATEGORIES = 15  # in the chart; the table has all of them
RARE = 20  # objects of a category, with fewer of which its AP is a matter of chance
EDGES = [index / 20 for index in range(2, 21)]  # of the histogram of IoU
TEXT = ("meaning", "file and SHA-256")  # columns of words
LINES = ("none", "class", "box", "both")


def page(analysis: Analysis) -> str:
    """The whole report as HTML; pictures, style and script are inside."""
    objects = Objects.of(analysis.data)
    before, after = (place(rows, objects) for rows in analysis.rows)
    sections = [
        f"<h1>Where {escape(analysis.found.name)} loses AP</h1>",
        f'<p class="headline">{escape(headline(analysis))}</p>',
        _soft(analysis.data.summary(), *analysis.remarks),
        _tiles(analysis),
        _section(
            "What perfect predictions would be worth", _swap_table(analysis), _soft(*analysis.found.rules, tables.NOTE)
        ),
        _charts(analysis, before, after),
        _section("TIDE’s errors", _error_table(analysis)),
        _class_chart(analysis),
        *_picture_sections(analysis, objects, before, after),
        _class_table(analysis),
        _section("What was read", _inputs(analysis)),
    ]
    style, script = ((files("refinebox.report") / name).read_text("utf-8") for name in ("page.css", "page.js"))
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(analysis.found.name)}: oracle analysis</title><style>{style}</style></head>"
        f"<body><main>{''.join(sections)}</main><script>{script}</script></body></html>\n"
    )


def _section(title: str, *parts: str) -> str:
    return f"<section><h2>{escape(title)}</h2>{''.join(parts)}</section>"


def _soft(*lines: str) -> str:
    return "".join(f'<p class="soft">{escape(line)}</p>' for line in lines)


def _table(head: Sequence[str], rows: Iterable[Sequence[str]], *, sortable: bool = False) -> str:
    """Cells are HTML already."""
    wrap = "<button>{}</button>" if sortable else "{}"
    top = "".join(f"<th{' class=text' if name in TEXT else ''}>{wrap.format(escape(name))}</th>" for name in head)
    body = "".join(f"<tr>{''.join(cells)}</tr>" for cells in rows)
    return f'<div class="scroll"><table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>'


def _number(value: float | None, gain: float | None = None) -> str:
    """A cell with one decimal and the gain behind it."""
    shown = ""
    if gain is not None:
        shown = f' <small class="{"up" if gain >= 0 else "down"}">{gain:+.1f}</small>'
    return f'<td data-value="{-1 if value is None else value:.4f}">{tables.points(value)}{shown}</td>'


def _tiles(analysis: Analysis) -> str:
    ap = {name: tables.points(found.metrics["AP"]) for name, found in analysis.evaluations.items()}
    tiles = {"AP as it is": ap["none"], "AP with perfect boxes": ap["box"]}
    if analysis.comparison:
        comparison, closed = analysis.comparison, analysis.comparison.headroom_closed()["AP"]
        tiles = {
            "AP before": tables.points(comparison.before.metrics["AP"]),
            "AP refined": tables.points(comparison.after.metrics["AP"]),
            "AP with perfect boxes": tables.points(comparison.perfect_box.metrics["AP"]),
            "of the headroom closed": "–" if closed is None else f"{100 * closed:.0f} %",
        }
        if analysis.found.caveat:
            del tiles["of the headroom closed"]
    if not analysis.found.before:  # else the swaps start from refined boxes
        tiles[f"AP with perfect boxes where IoU ≥ {analysis.min_iou:.2f}"] = ap["box_from_iou"]
    tiles["AP with perfect classes"] = ap["class"]
    baseline, plain = next(iter(tiles.values())), {"AP refined"} if analysis.found.caveat else ()
    shown = "".join(
        f'<div class="tile"><b>{value}</b>{"" if name in plain else _gain(value, baseline)}{escape(name)}</div>'
        for name, value in tiles.items()
    )
    return f'<div class="tiles">{shown}</div>{_soft(*tables.comparison_lines(analysis))}'


def _gain(value: str, baseline: str) -> str:
    """How much more a tile shows than the first, where both are AP."""
    try:
        gain = float(value) - float(baseline)
    except ValueError:  # a share, or nothing
        return ""
    return f'<small class="{"up" if gain > 0 else "down"}">{gain:+.1f}</small> ' if gain else ""


def _swap_table(analysis: Analysis) -> str:
    baseline = analysis.evaluations["none"].metrics

    def row(title: str, meaning: str, metrics: Metrics) -> list[str]:
        change = {} if metrics is baseline else tables.gains(metrics, baseline)
        cells = [_number(value, change.get(name)) for name, value in metrics.items()]
        return [f'<td title="{escape(meaning)}">{escape(title)}</td>', *cells]

    rows = [row(swap.title, swap.meaning, analysis.evaluations[swap.name].metrics) for swap in analysis.swaps]
    if analysis.comparison and analysis.found.before:
        rows.append(row("before refinement", "what the refiner started from", analysis.comparison.before.metrics))
    elif analysis.comparison:
        rows.append(row("refined", "the refined detections", analysis.comparison.after.metrics))
    meanings = "".join(f"<li><b>{escape(swap.title)}</b>: {escape(swap.meaning)}</li>" for swap in analysis.swaps)
    return (
        _table(["", *baseline], rows)
        + f'<details class="soft"><summary>What the rows mean</summary><ul>{meanings}</ul></details>'
    )


def _charts(analysis: Analysis, before: Placement, after: Placement) -> str:
    titles = {swap.name: swap.title for swap in analysis.swaps}
    curves = {titles[name]: analysis.evaluations[name].per_threshold for name in LINES}
    if analysis.comparison:
        both = {"before": analysis.comparison.before.per_threshold, "refined": analysis.comparison.after.per_threshold}
        curves = both | {name: curve for name, curve in curves.items() if name != titles["none"]}
    series = {name: [(x, y or 0.0) for x, y in curve.items()] for name, curve in curves.items()}
    placed = {"before": before, "after": after} if analysis.comparison else {"as is": before}
    counts = {name: np.histogram(found.iou[found.iou > 0], EDGES)[0].tolist() for name, found in placed.items()}
    alone = ", ".join(f"{int((found.iou == 0).sum()):,} {name}" for name, found in placed.items())
    return (
        '<div class="pair">'
        + _section("AP against IoU threshold", charts.lines(series, x_label="IoU threshold", y_label="AP"))
        + _section(
            "How well objects are boxed",
            charts.histogram(counts, EDGES, x_label="IoU of an object with its detection", y_label="objects"),
            _soft(f"Objects that no detection of their category comes near: {alone}."),
        )
        + "</div>"
    )


def _error_table(analysis: Analysis) -> str:
    errors = analysis.errors["errors"]
    rows = [
        (
            f"<td>{kind.name.lower()}</td>",
            f"<td>{errors[kind.name.lower()]['count']:,}</td>",
            f"<td>{errors[kind.name.lower()]['dAP']:.1f}</td>",
            f'<td class="text">{escape(meaning)}</td>',
        )
        for kind, meaning in MEANINGS.items()
    ]
    note = (
        f"AP50 of the {analysis.errors['detections']} best detections of each image is {analysis.errors['AP50']:.1f}; "
        "the cost is what it gains when this one type is put right."
    )
    return _table(["", "how many", "cost", "meaning"], rows) + _soft(note)


def _found_categories(analysis: Analysis) -> list[dict[str, Any]]:
    """The categories that have objects, each with its ``change`` of AP by refinement, or else by perfect boxes."""
    rows = [row for row in tables.per_class(analysis) if row["swaps"]["none"]["AP"] is not None]
    for row in rows:
        old, new = row["swaps"]["none"]["AP"], row["swaps"]["box"]["AP"]
        if analysis.comparison:
            both = analysis.comparison.before, analysis.comparison.after
            old, new = (found.per_category.get(row["id"], {}).get("AP") for found in both)
        row["change"] = (new or 0.0) - (old or 0.0)
    return rows


def _what_changed(analysis: Analysis) -> str:
    return "refinement" if analysis.comparison else "perfect boxes"


def _class_chart(analysis: Analysis) -> str:
    if analysis.found.caveat:  # what refinement changes here is no gain
        return ""
    named = [(f"{row['name']} ({row['objects']:,}{_rare(row)})", row["change"]) for row in _found_categories(analysis)]
    ranked = sorted(named, key=lambda item: -item[1])
    if len(ranked) > CATEGORIES:
        ranked = ranked[: CATEGORIES - 5] + ranked[-5:]
    label = f"AP gained by {_what_changed(analysis)}"
    note = _soft(f"Behind each name: its objects. Rare: fewer than {RARE}, of which AP says little.")
    return _section(label, charts.bars(ranked, label=label) + note if ranked else "")


def _rare(row: Mapping[str, Any]) -> str:
    return ", rare" if row["objects"] < RARE else ""


def _class_table(analysis: Analysis) -> str:
    shown = [swap for swap in analysis.swaps if swap.name in (*LINES, "box_from_iou")]
    cells = [
        [
            f"<td>{escape(row['name'])}{' <small>rare</small>' if _rare(row) else ''}</td>",
            f'<td data-value="{row["objects"]}">{row["objects"]:,}</td>',
            *(_number(row["swaps"][swap.name]["AP"]) for swap in shown),
            *([] if analysis.found.caveat else [_number(row["change"])]),
        ]
        for row in _found_categories(analysis)
    ]
    head = ["category", "objects", *(swap.title for swap in shown)]
    if not analysis.found.caveat:
        head.append(f"gain of {_what_changed(analysis)}")
    return _section("AP of every category", _table(head, cells, sortable=True))


def _picture_sections(analysis: Analysis, objects: Objects, before: Placement, after: Placement) -> list[str]:
    gains = image_gains(objects, before, after)
    most = [gain for gain in gains[:PICTURES] if gain.value > 0]
    least = [gain for gain in gains[::-1][:PICTURES] if gain.value < 0]
    titles, solid = ("Images that gain most", "Images that lose most"), "the same, refined"
    if not analysis.comparison:
        titles, solid = ("Images whose boxes have most to gain", ""), "the same, perfect where that is in reach"
    return [
        _pictures(title, solid, gallery.draw(analysis.data, objects, before, after, chosen))
        for title, chosen in zip(titles, (most, least), strict=True)
        if chosen
    ]


def _pictures(title: str, solid: str, drawn: Sequence[Drawn]) -> str:
    missing = [item.name for item in drawn if item.source is None]
    note = (
        f"Thin: objects; dashed: detections; solid: {solid}. Below: change of the mean IoU of the objects. "
        "A tap enlarges."
    )
    if missing:
        note += f" {len(missing)} of {len(drawn)} image files are not there, such as {missing[0]}; pass --images."
    figures = "".join(
        f'<figure><img src="{item.source}" alt="{escape(item.seen)}" tabindex="0" role="button">'
        f"<figcaption>{_caption(item.gain)} · {escape(item.name)}</figcaption></figure>"
        for item in drawn
        if item.source
    )
    return _section(title, _soft(note), f'<div class="pictures">{figures}</div>')


def _caption(gain: Gain) -> str:
    return f'<b class="{"up" if gain.value >= 0 else "down"}">{gain.value:+.2f}</b>'


def _inputs(analysis: Analysis) -> str:
    rows = [
        (f"<td>{escape(what)}</td>", f'<td class="text">{escape(entry["name"])}<br><code>{entry["sha256"]}</code></td>')
        for what, entry in analysis.found.inputs.items()
    ]
    versions = ", ".join(f"{name} {number}" for name, number in tables.versions().items())
    return _table(["", "file and SHA-256"], rows) + _soft(f"Evaluated by {analysis.evaluated_by}, with {versions}.")
