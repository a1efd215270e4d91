"""What the documents show is what there is: commands and options, files and extras; every Python block runs."""

import importlib
import re
import shutil
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from documents import BLOCKS, DOCUMENTS, ROOT, Block, as_refinebox, commands, inline
from typer.main import get_command

import refinebox
from refinebox.commands.app import app
from refinebox.data.annotations import CocoData
from refinebox.data.images import read_image
from refinebox.detection.detector import Detector
from refinebox.detection.zoo import describe
from refinebox.files import checkpoint
from refinebox.refinement.refiner import Refiner
from refinebox.refinement.upgraded import apply
from refinebox.training.run import write_refiner

COMMANDS: dict[str, Any] = get_command(app).commands  # type: ignore[attr-defined]
LANGUAGES = {"sh", "python", "text"}
OTHERS = {"python3", "source", "pip", "pytest", "yolo", "pre-commit", "mkdocs", "jupyter", "git"}
SCRIPTS = {path.name: path.read_text() for path in (ROOT / "scripts").glob("*.py")}
# of other programs, which documents name within their text
FOREIGN = {"--nproc-per-node", "--inplace", "--hook-type"}
# the file of tests that runs a Python block, which is known by what it says alone
RUN = {
    ("README.md", "load_refiner"): "test_docs.py",
    ("docs/adapters.md", "class OwlViT"): "test_docs.py",
    ("docs/adapters.md", "check_detector"): "test_docs.py",
    ("docs/export.md", "import onnxruntime"): "refinement/test_export.py",
    ("docs/export.md", "import torch"): "refinement/test_exportable.py",
    ("docs/export.md", "aoti"): "refinement/test_exportable.py",
    ("docs/integrations.md", "supervision"): "test_programs.py",
    ("docs/integrations.md", "fiftyone"): "test_programs.py",
    ("docs/scale.md", "count_rows"): "test_programs.py",
    ("docs/scale.md", "import ray"): "test_programs.py",
    ("docs/scale.md", "mapInPandas"): "test_programs.py",
    ("docs/scale.md", "found ="): "test_programs.py",
}


def python_blocks(document: str) -> list[str]:
    return [block.code for block in BLOCKS if block.language == "python" and block.document == document]


def options_of(command: Any) -> set[str]:
    return {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: block.place)
def test_every_block_says_what_language_it_is(block: Block) -> None:
    assert block.language in LANGUAGES


def test_there_are_blocks_to_check() -> None:
    assert len([block for block in BLOCKS if block.language == "sh"]) > 20


@pytest.mark.parametrize(
    "words", ["train --nonsense 3", "train --epochs many", "nonsense", "apply --refiner x", "refine --results"]
)
def test_a_command_that_does_not_exist_would_be_found(words: str) -> None:
    with pytest.raises(Exception, match=r"."):
        check_refinebox(words.split())


def check_refinebox(words: list[str]) -> None:
    """Parses a command as the command line does, and runs nothing."""
    if words and not words[0].startswith("-"):
        COMMANDS[words[0]].make_context(words[0], list(words[1:]))


def has_option(script: str, option: str) -> bool:
    """Whether a script names an option, or has a parameter that typer makes one of."""
    parameter = option.removeprefix("--").replace("-", "_")
    return f'"{option}"' in script or re.search(rf"^    {parameter}: ", script, flags=re.MULTILINE) is not None


SHELL = [
    pytest.param(words, id=f"{block.place}: {' '.join(words)[:40]}")
    for block in BLOCKS
    if block.language == "sh"
    for words in commands(block.code)
]


@pytest.mark.parametrize("words", SHELL)
def test_every_command_shown_exists_with_its_options(words: list[str]) -> None:
    ours = as_refinebox(words)
    if ours is not None:
        check_refinebox(ours)
    elif words[0] == "python":
        assert (ROOT / words[1]).is_file()
        source = SCRIPTS[Path(words[1]).name]
        assert [word for word in words[2:] if word.startswith("--") and not has_option(source, word)] == []
    else:
        assert words[0] in OTHERS


PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS = set(PROJECT["optional-dependencies"])
FOLDERS = ("refinebox", "adapters", "scripts", "tests")
MODULES = {path.name for folder in FOLDERS for path in (ROOT / folder).rglob("*.py")}


def test_one_version_is_told_everywhere() -> None:
    assert f"\nversion: {PROJECT['version']}\n" in (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert f"\n## {PROJECT['version']}\n" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_what_the_text_names_exists(document: Path) -> None:
    text = document.read_text(encoding="utf-8")
    for extras in re.findall(r"(?:refinebox|'\.|\"\.)\[([\w,]+)\]", text):
        assert set(extras.split(",")) <= EXTRAS
    known = {option for command in COMMANDS.values() for option in options_of(command)} | FOREIGN
    known |= {"--help", "--version", "--install-completion", "--show-completion"}
    if document.name == "CHANGELOG.md":
        return  # which also names what was
    for code in inline(document):
        if re.fullmatch(r"[\w/]+\.py", code) and code != "owl.py":  # which a document shows whole
            there = (ROOT / code).is_file() or (ROOT / "refinebox" / code).is_file()
            assert there if "/" in code else code in MODULES, code
        ours = as_refinebox(code.split())
        if ours and ours[0].isalpha() and ours[0].islower():
            assert ours[0].replace("_", "-") in COMMANDS, code
            given = {word.partition("=")[0] for word in ours if re.fullmatch(r"--[a-z][\w-]*", word)}
            assert given <= options_of(COMMANDS[ours[0]]) | {"--help"}, code
        options = re.findall(r"(?<![\w-])--[a-z][a-z-]+[a-z](?![\w.])", code)
        scripted = {option for option in options if any(has_option(script, option) for script in SCRIPTS.values())}
        assert set(options) - known - scripted == set(), code


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_links_lead_to_files(document: Path) -> None:
    """Within the repository; the site's own are checked where it is built."""
    for address in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", document.read_text(encoding="utf-8")):
        if ":" not in address:
            assert (document.parent / address).exists(), address


def test_every_python_block_is_run_by_a_test() -> None:
    blocks = [block for block in BLOCKS if block.language == "python"]
    runs = [[key for key in RUN if key[0] == block.document and key[1] in block.code] for block in blocks]
    assert [block.place for block, found in zip(blocks, runs, strict=True) if len(found) != 1] == []
    assert {key for found in runs for key in found} == RUN.keys()
    for (document, _), name in RUN.items():
        assert Path(document).name in (ROOT / "tests" / name).read_text(encoding="utf-8")


@pytest.fixture
def _files(detector: Detector, validation: CocoData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The files that the README names, in the folder where the test is."""
    file, best = tmp_path / "detector.safetensors", tmp_path / "runs" / "first" / "best.safetensors"
    checkpoint.write(file, detector.tensors(), {"kind": "detector", "detector": describe(detector)})
    torch.manual_seed(0)
    write_refiner(best, Refiner(detector.channels, detector.strides), detector, {}, {"before": None, "after": None})
    apply(detector, file, best, tmp_path / "better.safetensors")
    shutil.copy(validation.folder / validation.images[0]["file_name"], tmp_path / "photo.jpg")
    monkeypatch.chdir(tmp_path)


@pytest.mark.usefixtures("_files")
def test_the_readme_runs(detector: Detector, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    monkeypatch.setattr(refinebox, "load_detector", lambda name: asked.append(name) or detector)
    images = detector.preprocess(read_image(Path("photo.jpg")))[None]
    names: dict[str, Any] = {"images": images, "sizes": torch.tensor([images.shape[-2:]])}
    (code,) = python_blocks("README.md")
    exec(compile(code, "README.md", "exec"), names)
    assert asked == ["dab-detr-r50"]
    assert names["output"].boxes.shape == (1, 12, 4)
    (found,) = names["model"].predict(["photo.jpg"])
    assert found.boxes.shape[1] == 4


@pytest.fixture
def owl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """The adapter that docs/adapters.md shows."""
    pytest.importorskip("transformers", reason="transformers is not installed; pip install -e '.[test]'")
    (tmp_path / "owl.py").write_text(python_blocks("docs/adapters.md")[0])
    monkeypatch.syspath_prepend(tmp_path)
    yield importlib.import_module("owl")
    sys.modules.pop("owl")


def test_the_adapter_is_short() -> None:
    assert len(python_blocks("docs/adapters.md")[0].splitlines()) <= 60


@pytest.mark.filterwarnings("ignore")
def test_the_adapter_keeps_the_contract(owl: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers import OwlViTConfig, OwlViTForObjectDetection

    torch.manual_seed(0)
    part = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = OwlViTConfig(
        text_config={**part, "vocab_size": 50, "bos_token_id": 48, "eos_token_id": 49},
        vision_config={**part, "image_size": 64, "patch_size": 8},
        projection_dim=32,
    )
    tokens = torch.tensor([[48, 3, 4, 49], [48, 7, 8, 49]])
    network = OwlViTForObjectDetection(config).eval()
    detector = owl.OwlViT(network, owl.PHRASES, tokens)
    assert (detector.strides, detector.channels) == ((8,), (32,))
    images = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        wanted = network(pixel_values=images, input_ids=tokens.repeat(2, 1))
    assert torch.equal(detector(images, torch.tensor([[64, 64]] * 2)).logits, wanted.logits)
    # the second block is the test that the document advises
    monkeypatch.setattr(owl, "build", lambda: detector)
    names: dict[str, Any] = {}
    exec(compile(python_blocks("docs/adapters.md")[1], "adapters.md", "exec"), names)
    names["test_keeps_the_contract"]()


@pytest.mark.parametrize("family", ["RT-DETR", "Table Transformer", "torchvision", "YOLOX", "EfficientDet"])
def test_the_most_used_families_are_walked_through(family: str) -> None:
    """From the question whether it pays to the pictures, in five commands."""
    text = (ROOT / "docs/detectors.md").read_text(encoding="utf-8")
    (section,) = re.findall(rf"^## {family}.*?(?=^## |\Z)", text, re.DOTALL | re.MULTILINE)
    verbs = re.findall(r"^refinebox (\S+)", section, re.MULTILINE)
    assert verbs == ["oracle-analysis", "train", "apply", "eval", "predict"]
