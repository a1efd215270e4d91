"""An oracle analysis goes out: tables on the terminal, and the files that are asked for."""

from pathlib import Path

from refinebox.analysis.analysis import Analysis
from refinebox.files import checkpoint
from refinebox.report.page import page
from refinebox.report.tables import print_analysis, to_csv, to_json


def publish(analysis: Analysis, json_file: Path | None, csv_file: Path | None, html_file: Path | None) -> None:
    """Prints the tables and writes the files that are named, each whole or not at all."""
    print_analysis(analysis)
    if json_file is not None:
        checkpoint.write_json(json_file, to_json(analysis))
    if csv_file is not None:
        checkpoint.write_bytes(csv_file, to_csv(analysis).encode())
    if html_file is not None:
        checkpoint.write_bytes(html_file, page(analysis).encode())
