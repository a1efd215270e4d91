"""AP and its kin as a table: one row for each way to detect."""

from collections.abc import Mapping

from rich.table import Table

from refinebox.evaluation.evaluator import Metrics


def metrics_table(title: str, rows: Mapping[str, Metrics], *, baseline: str) -> Table:
    """One row of metrics for each name, in points; below the ``baseline`` with the gain over it behind each value."""
    table = Table(title=title, title_justify="left")
    table.add_column("", no_wrap=True)
    for metric in rows[baseline]:
        table.add_column(metric, justify="right")
    reference: Metrics | None = None
    for name, metrics in rows.items():
        table.add_row(name, *(_cell(metric, metrics, reference) for metric in rows[baseline]))
        if name == baseline:
            reference = metrics
    return table


def _cell(metric: str, metrics: Metrics, reference: Metrics | None) -> str:
    value = metrics[metric]
    if value is None:
        return "–"
    old = reference[metric] if reference else None
    return f"{value:.1f}" if old is None else f"{value:.1f} ({value - old:+.1f})"
