"""Every command that the documents show is run, section by section, on tiny files of the names that it has there."""

import shutil
import sys
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from pathlib import Path

import pytest
from documents import BLOCKS, as_refinebox, commands
from invocation import run
from readers_files import ALSO, FILES, IMAGES

from refinebox.commands import demo
from refinebox.training.settings import Settings

# what stands for what cannot be downloaded, or is not at hand
INSTEAD = {
    "--detector detr-r50 --weights mine.pth --data": "--detector dab-detr-shapes --weights mine.pth --short-side 160 "
    "--long-side 192 --data",  # the size that it was trained at
    "--detector detr-r50 --weights mine.pth --refiner": "--detector dab-detr-shapes --weights mine.pth --refiner",
    "--features torchvision:fasterrcnn_resnet50_fpn_v2": "--features dab-detr-shapes",
    "torchvision:fasterrcnn_resnet50_fpn_v2 --weights mine.pth": "torchvision:ssdlite320_mobilenet_v3_large --weights "
    "ssdlite320_mobilenet_v3_large.pth",
    "effdet:tf_efficientdet_d0": "effdet:tf_efficientdet_lite0 --weights tf_efficientdet_lite0.pth",
    "--device cuda:0": "--device cpu",
    "--device cuda:1": "--device cpu",
}
# what is written behind a command to make it short
BEHIND = {
    "train": ["--epochs", "1"],
    "apply": ["--force"],  # so short a training may well do harm
}
# what is not run, and where it is
SKIPPED = {
    "pip install": "by .ci/run, which has a network",
    "python3 -m venv": "by .ci/run",
    "source .venv": "by .ci/run",
    "pytest": "these are the tests",
    "yolo ": "another program, under the AGPL",
    "python scripts/": "hours; in tests/scripts on less",
    "refinebox export": "half a minute each; in tests/refinement/test_export.py and test_exportable.py",
    "better.onnx": "what an export made; in tests/refinement/test_export.py",
}
WRITES = ("--output", "--html", "--json", "--csv")
SECTIONS: dict[tuple[str, str], list[str]] = {}
for block in BLOCKS:
    if block.language == "sh":
        lines = [" ".join(words) for words in commands(block.code)]
        SECTIONS.setdefault((block.document, block.section), []).extend(lines)
LINES = [line for lines in SECTIONS.values() for line in lines]


def is_run(line: str) -> bool:
    return not any(part in line for part in SKIPPED)


def shortened(line: str) -> list[str]:
    """The words behind ``refinebox`` that are run for a command."""
    for shown, other in INSTEAD.items():
        line = line.replace(shown, other)
    words = as_refinebox(line.split())
    assert words is not None, line
    return [*words, *BEHIND.get(words[0], ())]


def places(words: list[str]) -> list[str]:
    """What a command writes."""
    return [name.rstrip("/") for option, name in pairwise(words) if option in WRITES]


def at_hand(lines: list[list[str]]) -> set[str]:
    """What a reader of these commands has before: what they name and do not make."""
    named = {name for words in lines for word in words for name in (word.rstrip("/"), *ALSO.get(word, ()))}
    return (named & FILES.keys()) - {name for words in lines for name in places(words)}


def test_most_commands_are_run_and_no_rule_is_idle() -> None:
    run = [line for line in LINES if is_run(line)]
    print(f"{len(run)} of the {len(LINES)} commands that the documents show are run, {len(LINES) - len(run)} are not")
    assert len(run) > 0.7 * len(LINES)
    assert [part for part in SKIPPED if not any(part in line for line in LINES)] == []
    assert [part for part in INSTEAD if not any(part in line for line in run)] == []
    needed = [at_hand([shortened(line) for line in filter(is_run, lines)]) for lines in SECTIONS.values()]
    assert FILES.keys() - set().union(*needed) == set()


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Every file of a reader, made when it is first asked for."""
    folder = tmp_path_factory.mktemp("reader")

    def made(name: str) -> Path:
        place = folder / name
        if not place.exists():
            place.parent.mkdir(parents=True, exist_ok=True)
            FILES[name](place)
        return place

    return made


@pytest.mark.filterwarnings("ignore")  # of what the libraries import
@pytest.mark.parametrize(("document", "section"), [key for key, lines in SECTIONS.items() if any(map(is_run, lines))])
def test_the_commands_of_a_section_run(
    document: str, section: str, store: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = [shortened(line) for line in SECTIONS[document, section] if is_run(line)]
    for name in at_hand(lines):
        source, place = store(name), tmp_path / name
        place.parent.mkdir(parents=True, exist_ok=True)
        (shutil.copytree if source.is_dir() else shutil.copy)(source, place)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(demo, "run", partial(demo.run, images=IMAGES, chosen=Settings(epochs=1)))
    for words in lines:
        result = run(*words)
        assert result.exit_code == 0, f"refinebox {' '.join(words)}\n{result.output}"
        made = [] if "--dry-run" in words else places(words)
        assert [name for name in made if not Path(name).exists()] == [], words
    sys.modules.pop("owl", None)  # the module of one of them
