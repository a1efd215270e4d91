"""The figures of an oracle analysis: as tables, as JSON and as CSV."""

import csv
import io
from importlib.metadata import version
from typing import Any

from rich.table import Table

import refinebox
from refinebox.analysis.analysis import Analysis
from refinebox.analysis.tide import MEANINGS
from refinebox.evaluation.evaluator import Metrics
from refinebox.refinement.change import change
from refinebox.report.metrics import metrics_table, thresholds_table

NOTE = (
    "Gains do not add up, and not to 100: a detection counts only when its class, its box and its rank are all good "
    "enough, so each swap alone meets the errors that the others would have put right."
)
LIBRARIES = ("faster-coco-eval", "pycocotools", "numpy", "torch")
TOP = 10  # categories on the terminal


def swaps_table(analysis: Analysis) -> Table:
    """AP and its kin after each swap, with what it gains."""
    titles = {swap.title: analysis.evaluations[swap.name].metrics for swap in analysis.swaps}
    title = f"{analysis.found.name}: AP in points after each swap, gain over the detections as they are"
    return metrics_table(title, titles, baseline="as is")


def swap_thresholds_table(analysis: Analysis) -> Table:
    """AP at each IoU threshold after each swap."""
    return thresholds_table({swap.title: analysis.evaluations[swap.name] for swap in analysis.swaps})


def errors_table(analysis: Analysis) -> Table:
    """TIDE's errors: how many there are, and what they cost."""
    limit, ap50 = analysis.errors["detections"], analysis.errors["AP50"]
    title = f"TIDE's errors in the {limit} best of each image, AP50 {ap50:.1f}"
    table = Table(title=title, title_justify="left")
    for column in ("", "how many", "cost (AP50)", "meaning"):
        table.add_column(column, justify="left" if column in ("", "meaning") else "right")
    for kind, meaning in MEANINGS.items():
        error = analysis.errors["errors"][kind.name.lower()]
        table.add_row(kind.name.lower(), f"{error['count']:,}", f"{error['dAP']:.1f}", meaning)
    return table


def categories_table(analysis: Analysis, most: int | None = TOP) -> Table:
    """The categories, those that gain most from perfect boxes first: so many of them, or all."""
    which = "each category" if most is None else f"the {most} categories that gain most from perfect boxes"
    table = Table(title=f"AP of {which}", title_justify="left")
    shown = ("none", "box", "class", "both")
    table.add_column("")
    for swap in analysis.swaps:
        if swap.name in shown:
            table.add_column(swap.title, justify="right")
    rows = [row for row in per_class(analysis) if row["swaps"]["none"]["AP"] is not None]
    rows.sort(key=lambda row: row["swaps"]["none"]["AP"] - row["swaps"]["box"]["AP"])
    for row in rows[:most]:
        values = (row["swaps"][swap.name]["AP"] for swap in analysis.swaps if swap.name in shown)
        table.add_row(row["name"], *(f"{value:.1f}" for value in values))
    return table


def comparison_lines(analysis: Analysis) -> list[str]:
    """What refinement made of the detections, in words; nothing where there is no refinement."""
    if not analysis.comparison:
        return []
    found, closed = analysis.comparison, analysis.comparison.headroom_closed()["AP"]
    before, after = found.before.metrics["AP"], found.after.metrics["AP"]
    share = "no headroom for better boxes" if closed is None else f"{100 * closed:.0f} % of the headroom closed"
    interval = found.interval
    if before is None or after is None:
        return ["Refined: there is no object by which AP could be told."]
    if analysis.found.caveat:
        return [f"Refined: AP {before:.1f} → {after:.1f}; {analysis.found.caveat}."]
    return [
        f"Refined: AP {change(before, after, interval.low, interval.high)}, over {interval.resamples:,} resamples of "
        f"the images; perfect boxes {points(found.perfect_box.metrics['AP'])}: {share}."
    ]


def points(value: float | None) -> str:
    """One decimal, or a dash where there is no value."""
    return "–" if value is None else f"{value:.1f}"


def gains(metrics: Metrics, baseline: Metrics) -> Metrics:
    """Each metric less the baseline's; None where either has none."""
    differences: Metrics = {}
    for name, value in metrics.items():
        old = baseline[name]
        differences[name] = None if value is None or old is None else value - old
    return differences


def per_class(analysis: Analysis) -> list[dict[str, Any]]:
    """One entry for each category: ``id``, ``name``, number of ``objects``, and its metrics after each of ``swaps``."""
    counts = dict.fromkeys(analysis.data.categories, 0)
    for entry in analysis.data.annotations:
        counts[entry["category_id"]] += not entry["iscrowd"]
    return [
        {
            "id": category_id,
            "name": name,
            "objects": counts[category_id],
            "swaps": {swap: found.per_category[category_id] for swap, found in analysis.evaluations.items()},
        }
        for category_id, name in analysis.data.categories.items()
    ]


def to_json(analysis: Analysis) -> dict[str, Any]:
    """Everything, ready for a JSON file; AP in points."""
    swaps, none = {name: found.metrics for name, found in analysis.evaluations.items()}, analysis.evaluations["none"]
    content: dict[str, Any] = {
        "detector": analysis.found.name,
        "swaps": swaps,
        "gains": {name: gains(metrics, none.metrics) for name, metrics in swaps.items()},
        "meanings": {swap.name: swap.meaning for swap in analysis.swaps},
        "per_threshold": {
            name: {f"{threshold:.2f}": ap for threshold, ap in found.per_threshold.items()}
            for name, found in analysis.evaluations.items()
        },
        "per_class": per_class(analysis),
        "tide": analysis.errors,
        "rules": [*analysis.found.rules, NOTE],
        "inputs": analysis.found.inputs,
        "evaluated_by": analysis.evaluated_by,
        "versions": versions(),
    }
    if analysis.comparison:
        comparison = analysis.comparison
        interval = comparison.interval
        content["headroom"] = {
            "before": comparison.before.metrics,
            "after": comparison.after.metrics,
            "perfect_box": comparison.perfect_box.metrics,
            "closed": comparison.headroom_closed(),
        }
        if analysis.found.caveat:
            content["headroom"]["caveat"] = analysis.found.caveat
        content["bootstrap"] = {
            "mean": interval.mean,
            "low": interval.low,
            "high": interval.high,
            "resamples": interval.resamples,
        }
    return content


def versions() -> dict[str, str]:
    """Of refinebox and of what its figures rest on."""
    return {"refinebox": refinebox.__version__, **{name: version(name) for name in LIBRARIES}}


def to_csv(analysis: Analysis) -> str:
    """One line for each category after one for all: number of objects, and every metric after every swap."""
    everything = {swap: found.metrics for swap, found in analysis.evaluations.items()}
    rows = per_class(analysis)
    total = {"id": "", "name": "all", "objects": sum(row["objects"] for row in rows), "swaps": everything}
    columns = [(swap, metric) for swap, metrics in everything.items() for metric in metrics]
    with io.StringIO(newline="") as text:
        writer = csv.writer(text)
        writer.writerow(["category id", "category", "objects", *(f"{swap} {metric}" for swap, metric in columns)])
        for row in [total, *rows]:
            values = (row["swaps"][swap].get(metric) for swap, metric in columns)
            shown = ("" if value is None else round(value, 4) for value in values)
            writer.writerow([row["id"], row["name"], row["objects"], *shown])
        return text.getvalue()
