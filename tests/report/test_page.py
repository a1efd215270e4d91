"""The report in a real browser: no script error, every picture there, nothing wider than a phone."""

import html
import json
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from random_boxes import worse

from refinebox.analysis import analysis
from refinebox.analysis.analysis import Analysis
from refinebox.data.annotations import CocoData
from refinebox.detection.detector import Detector
from refinebox.files import checkpoint
from refinebox.refinement.refined_detector import RefinedDetector
from refinebox.refinement.refiner import Refiner
from refinebox.report.page import page

BROWSER = shutil.which("chromium") or shutil.which("google-chrome")
# what a wrapper around the page sees: errors of its script, what it asks the network for, and how it is laid out
PROBE = """
const found = {errors: [], width: innerWidth};
addEventListener("error", (event) => found.errors.push(event.message || "a resource is missing"), true);
addEventListener("load", () => {
  const pictures = [...document.images];
  found.pictures = pictures.length;
  found.broken = pictures.filter((one) => !one.complete || !one.naturalWidth).length;
  found.charts = [...document.querySelectorAll("svg")].map((one) => one.getBoundingClientRect().height > 50);
  const asked = performance.getEntriesByType("resource").map((one) => one.name);
  found.requests = asked.filter((one) => !one.startsWith("data:"));
  found.scroll = document.documentElement.scrollWidth;
  const table = [...document.querySelectorAll("table")].find((one) => one.querySelector("button"));
  const first = () => table.tBodies[0].rows[0].cells[0].textContent;
  const sorted = (name) => {
    [...table.querySelectorAll("button")].find((one) => one.textContent === name).click();
    return [...table.tBodies[0].rows].map((row) => row.cells[1].dataset.value).map(Number);
  };
  found.objects = [sorted("objects"), sorted("objects")];
  found.background = getComputedStyle(document.body).backgroundColor;
  document.title = JSON.stringify(found);
});
"""


@pytest.fixture
def compared(validation: CocoData, tmp_path: Path) -> Analysis:
    """Detections and others that are better in all images but one."""
    before, after = worse(validation), worse(validation, shift=0.02)
    last = validation.images[-1]["id"]
    after = [row for row in after if row["image_id"] != last]
    after += [row for row in worse(validation, 1, 0.3) if row["image_id"] == last]
    for name, rows in (("before", before), ("after", after)):
        checkpoint.write_json(tmp_path / f"{name}.json", rows)
    return analysis.run(validation, results=tmp_path / "before.json", refined=tmp_path / "after.json")


def browse(content: str, folder: Path, *options: str) -> dict[str, Any]:
    """What PROBE finds in a fresh browser without a network."""
    if BROWSER is None:
        pytest.skip("no browser: install Debian's chromium to check the report in one")
    path = folder / "page.html"
    path.write_text(content.replace("<head>", f"<head><script>{PROBE}</script>", 1))
    command = [
        *(BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"),
        *("--disable-component-update", "--disable-sync", f"--user-data-dir={folder / 'profile'}"),
        *("--proxy-server=127.0.0.1:9", *options, "--dump-dom", path.as_uri()),
    ]
    dumped = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout
    (title,) = re.findall(r"<title>(.*?)</title>", dumped, re.DOTALL)[:1]
    return dict(json.loads(html.unescape(title)))


@pytest.mark.parametrize("width", [500, 1200])
def test_a_browser_shows_all_of_the_report(width: int, compared: Analysis, tmp_path: Path) -> None:
    content = page(compared)
    found = browse(content, tmp_path, f"--window-size={width},900")
    assert found["errors"] == []
    assert found["requests"] == []
    assert found["pictures"] == content.count("<img ") == 4
    assert found["broken"] == 0
    assert found["charts"] == [True] * 3
    assert found["scroll"] <= found["width"]
    up, down = sorted(found["objects"][0]), found["objects"][0]
    assert down == up[::-1] != up
    assert found["objects"][1] == up


def test_the_report_is_dark_where_the_reader_wants_it(compared: Analysis, tmp_path: Path) -> None:
    light = browse(page(compared), tmp_path)
    dark = browse(page(compared), tmp_path, "--blink-settings=preferredColorScheme=0")
    assert light["background"] == "rgb(246, 247, 249)"
    assert dark["background"] == "rgb(16, 20, 27)"
    assert dark["errors"] == []


def test_the_report_needs_nothing_else(compared: Analysis) -> None:
    content = page(compared)
    outside = re.findall(r"""(?:src|href)=["'](?!data:)([^"']*)""", content) + re.findall(r"url\(|@import", content)
    assert outside == []
    assert len(content) < 5_000_000
    assert 'name="viewport" content="width=device-width' in content


def test_the_report_shows_the_figures(compared: Analysis) -> None:
    content = page(compared)
    assert compared.comparison
    for name, found in compared.evaluations.items():
        assert f"{found.metrics['AP']:.1f}" in content, name
    closed = compared.comparison.headroom_closed()["AP"]
    assert closed is not None
    assert f"{100 * closed:.0f} %" in content
    for section in ("Images that gain most", "Images that lose most", "TIDE’s errors", "AP of every category"):
        assert f"<h2>{section}</h2>" in content
    for entry in compared.found.inputs.values():
        assert entry["sha256"] in content
    assert f"Evaluated by {compared.evaluated_by}, with refinebox " in content


def test_without_refinement_the_loosest_boxes_are_shown(validation: CocoData, tmp_path: Path) -> None:
    checkpoint.write_json(tmp_path / "before.json", worse(validation))
    content = page(analysis.run(validation, results=tmp_path / "before.json"))
    assert "<h2>Images whose boxes have most to gain</h2>" in content
    assert "Images that lose" not in content
    assert content.count("<img ") == len(validation.images)


def test_an_upgraded_checkpoint_is_shown_before_and_after(detector: Detector, validation: CocoData) -> None:
    torch.manual_seed(0)
    done = analysis.run(validation, RefinedDetector(detector, Refiner(detector.channels, detector.strides)))
    content = page(done)
    assert done.comparison
    for title, found in (("AP before", done.comparison.before), ("AP refined", done.comparison.after)):
        assert f"<b>{found.metrics['AP']:.1f}</b>{title}</div>" in content
    assert ">before refinement</td>" in content
    assert ">refined</td>" not in content


def test_missing_image_files_are_told(validation: CocoData, tmp_path: Path) -> None:
    elsewhere = replace(validation, folder=tmp_path / "none")
    checkpoint.write_json(tmp_path / "before.json", worse(validation))
    content = page(analysis.run(elsewhere, results=tmp_path / "before.json"))
    assert re.search(r"4 of 4 image files are not there, such as \d{6}\.jpg; pass --images\.", content)
    assert "<img " not in content


def test_names_cannot_break_the_page(validation: CocoData, tmp_path: Path) -> None:
    evil = replace(validation, categories=dict.fromkeys(validation.categories, "</script><b>&\"'"))
    checkpoint.write_json(tmp_path / "before.json", worse(evil))
    content = page(analysis.run(evil, results=tmp_path / "before.json"))
    assert "</script><b>" not in content
    assert "&lt;/script&gt;&lt;b&gt;&amp;&quot;" in content


def test_nothing_detected_and_nothing_to_find_are_reported_too(validation: CocoData, tmp_path: Path) -> None:
    checkpoint.write_json(tmp_path / "none.json", [])
    for data in (validation, replace(validation, annotations=[])):
        content = page(analysis.run(data, results=tmp_path / "none.json"))
        assert "</html>" in content
