"""AP and its kin as tables: one row, or one column, for each way to detect."""

from collections.abc import Mapping
from typing import TypeVar

from rich.table import Table

from refinebox.evaluation.evaluator import Evaluation, Metrics

K = TypeVar("K")


def metrics_table(title: str, rows: Mapping[str, Metrics], *, baseline: str | None = None) -> Table:
    """One row of metrics for each name, in points; below the ``baseline`` with the gain over it behind each value."""
    table = Table(title=title, title_justify="left")
    table.add_column("", no_wrap=True)
    cells = _cells(rows, baseline)
    for metric in next(iter(cells.values())):
        table.add_column(metric, justify="right")
    for name, row in cells.items():
        table.add_row(name, *row.values())
    return table


def thresholds_table(found: Mapping[str, Evaluation], *, baseline: str | None = None) -> Table:
    """AP at each IoU threshold, with a column for each way to detect; gains as in :func:`metrics_table`."""
    columns = {name: each.per_threshold for name, each in found.items()}
    labels = {threshold: f"{threshold:.2f}" for threshold in next(iter(columns.values()))}
    return _upright("AP at each IoU threshold", labels, columns, baseline)


def categories_table(
    names: Mapping[int, str], found: Mapping[str, Evaluation], *, baseline: str | None = None
) -> Table:
    """AP of each category, with a column for each way to detect; gains as in :func:`metrics_table`."""
    columns = {
        name: {number: metrics["AP"] for number, metrics in each.per_category.items()} for name, each in found.items()
    }
    return _upright("AP of each category", names, columns, baseline)


def _upright(
    title: str, labels: Mapping[K, str], columns: Mapping[str, Mapping[K, float | None]], baseline: str | None
) -> Table:
    table = Table(title=title, title_justify="left")
    table.add_column("")
    for name in columns:
        table.add_column(name, justify="right")
    cells = _cells(columns, baseline)
    for key, label in labels.items():
        table.add_row(label, *(column[key] for column in cells.values()))
    return table


def _cells(found: Mapping[str, Mapping[K, float | None]], baseline: str | None) -> dict[str, dict[K, str]]:
    """What is printed for each value, in the order of the names; after the baseline's with the gain over it."""
    cells: dict[str, dict[K, str]] = {}
    reference: Mapping[K, float | None] = {}
    for name, values in found.items():
        cells[name] = {key: _cell(value, reference.get(key)) for key, value in values.items()}
        if name == baseline:
            reference = values
    return cells


def _cell(value: float | None, old: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:.1f}" if old is None else f"{value:.1f} ({value - old:+.1f})"
