"""The table of AP."""

import pytest

from refinebox.commands.console import show
from refinebox.evaluation.evaluator import METRICS, Evaluation, Metrics
from refinebox.report.metrics import categories_table, metrics_table, thresholds_table


@pytest.fixture(autouse=True)
def _no_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)


def metrics(**values: float | None) -> Metrics:
    return {**dict.fromkeys(METRICS, 10.0), **values}


def row_of(text: str, name: str) -> list[str]:
    """The cells of one printed row."""
    (line,) = (line for line in text.splitlines() if name in line)
    return [cell.strip() for cell in line.strip("│┃ ").replace("┃", "│").split("│")]


def printed(capsys: pytest.CaptureFixture[str], before: Metrics, after: Metrics) -> str:
    show(metrics_table("validation", {"detector": before, "refined": after}, baseline="detector"), width=150)
    return capsys.readouterr().out


def test_the_table_has_a_title_and_a_column_for_each_metric(capsys: pytest.CaptureFixture[str]) -> None:
    text = printed(capsys, metrics(), metrics())
    assert text.splitlines()[0].strip() == "validation"
    assert row_of(text, "AP50") == list(METRICS)


def test_the_baseline_has_values_without_gains(capsys: pytest.CaptureFixture[str]) -> None:
    text = printed(capsys, metrics(AP=41.26, AR=0.0), metrics())
    assert row_of(text, "detector") == ["detector", "41.3", *["10.0"] * 5, "0.0"]


def test_other_rows_have_gains_behind_their_values(capsys: pytest.CaptureFixture[str]) -> None:
    text = printed(capsys, metrics(), metrics(AP=12.34, AP50=7.5))
    assert row_of(text, "refined") == ["refined", "12.3 (+2.3)", "7.5 (-2.5)", *["10.0 (+0.0)"] * 5]


def test_rows_above_the_baseline_have_no_gains(capsys: pytest.CaptureFixture[str]) -> None:
    rows = {"before": metrics(), "cut": metrics(AP=11.0), "after": metrics(AP=13.0)}
    show(metrics_table("eval", rows, baseline="cut"), width=150)
    text = capsys.readouterr().out
    assert [row_of(text, name)[1] for name in rows] == ["10.0", "11.0", "13.0 (+2.0)"]


def test_without_a_baseline_nothing_is_a_gain(capsys: pytest.CaptureFixture[str]) -> None:
    show(metrics_table("eval", {"before": metrics(), "after": metrics(AP=13.0)}), width=150)
    assert row_of(capsys.readouterr().out, "after") == ["after", "13.0", *["10.0"] * 6]


def test_thresholds_and_categories_have_a_row_each(capsys: pytest.CaptureFixture[str]) -> None:
    found = {
        name: Evaluation(metrics(), {1: metrics(AP=ap), 2: metrics(AP=None)}, {0.5: ap + 5, 0.95: None})
        for name, ap in (("before", 40.0), ("cut", 41.0), ("after", 43.5))
    }
    show(thresholds_table(found, baseline="cut"))
    show(categories_table({1: "star", 2: "ring"}, found, baseline="cut"))
    text = capsys.readouterr().out
    assert row_of(text, "0.50") == ["0.50", "45.0", "46.0", "48.5 (+2.5)"]
    assert row_of(text, "0.95") == ["0.95", "–", "–", "–"]
    assert row_of(text, "star") == ["star", "40.0", "41.0", "43.5 (+2.5)"]
    assert row_of(text, "ring") == ["ring", "–", "–", "–"]


def test_a_value_that_does_not_exist_is_a_dash(capsys: pytest.CaptureFixture[str]) -> None:
    text = printed(capsys, metrics(APs=None), metrics(APs=None))
    assert row_of(text, "detector")[4] == "–"
    assert row_of(text, "refined")[4] == "–"


def test_a_value_without_a_counterpart_has_no_gain(capsys: pytest.CaptureFixture[str]) -> None:
    text = printed(capsys, metrics(APs=None), metrics(APs=3.0))
    assert row_of(text, "refined")[4] == "3.0"


def test_the_table_is_not_cut_in_a_narrow_place(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "30")
    text = printed(capsys, metrics(), metrics(**dict.fromkeys(METRICS, 99.9)))
    assert max(map(len, text.splitlines())) <= 30
    assert text.count("99.9 (+89.9)") == text.count("refined") == 7
