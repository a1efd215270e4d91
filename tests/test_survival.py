"""A training that is ended at any moment continues to the same bytes, and what ended it is said in one line."""

import json
import random
import re
import shutil
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import refinebox
from refinebox.detection.detector import Detector
from refinebox.detection.zoo import describe
from refinebox.files import checkpoint

if sys.platform == "win32":
    pytest.skip("Windows neither forks nor limits files", allow_module_level=True)

from sittings import begin, ended, sit

KILLED = -signal.SIGKILL
END_OF_FIRST_EPOCH = (
    21  # its points: three each for the configuration, the state twice, metrics, losses, curves and best
)


@pytest.fixture(scope="module")
def options(
    make_detector: Callable[..., Detector], shapes_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> list[str]:
    """Of a short training, with everything in it that chance decides; its second epoch is the better one."""
    detector = make_detector()
    path = tmp_path_factory.mktemp("detector") / "tiny.safetensors"
    checkpoint.write(path, detector.tensors(), {"kind": "detector", "detector": describe(detector)})
    words = ["--detector", path, "--data", shapes_folder, "--epochs", 2, "--batch-size", 3, "--steps", 1]
    return [*map(str, words), "--recipe", "published", "--jitter", "1", "--learning-rate", "3e-4", "--average", "0.9"]


@pytest.fixture(scope="module")
def uninterrupted(options: list[str], tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], float]:
    """What a run leaves that nothing ends, and the seconds from its start to its end."""
    folder = tmp_path_factory.mktemp("uninterrupted")
    sit(["--version"], folder / "said")  # importing torch, once for all, must not count
    start = time.monotonic()
    assert sit(["train", *options, "--output", folder / "run"], folder / "said") == 0
    return taken(folder / "run"), time.monotonic() - start


@pytest.fixture
def whole(uninterrupted: tuple[dict[str, Any], float]) -> dict[str, Any]:
    return uninterrupted[0]


@pytest.fixture
def command(options: list[str], tmp_path: Path) -> list[str]:
    return ["train", *options, "--output", str(tmp_path / "run")]


def taken(run: Path) -> dict[str, Any]:
    """Everything in the folder of a run, which is removed; but for the seconds that it took."""
    found: dict[str, Any] = dict(content(run))
    lines = [json.loads(line) for line in found["metrics.jsonl"].splitlines()]
    found["metrics.jsonl"] = [{**line, "seconds": 0} for line in lines]
    tensors, metadata = checkpoint.read(run / "last/state.safetensors")
    state = {name: tensor.numpy().tobytes() for name, tensor in tensors.items()}
    found["last/state.safetensors"] = state, {**metadata["progress"], "seconds": 0}
    shutil.rmtree(run)
    return found


def resumed(command: list[str], run: Path) -> list[str]:
    """The command that goes on with what a killed one left; before ``config.json`` is whole there is no run yet."""
    return [*command, "--resume"] if (run / "config.json").exists() else command


def done(run: Path) -> list[bytes]:
    """What a sitting can build on."""
    return [path.read_bytes() for path in (run / "config.json", run / "last/state.safetensors") if path.exists()]


def content(run: Path) -> dict[str, bytes]:
    return {str(path.relative_to(run)): path.read_bytes() for path in run.rglob("*") if path.is_file()}


def the_line(said: Path) -> str:
    """The one line of an error, behind what was printed before."""
    lines = [line for line in said.read_text().splitlines() if line.startswith("refinebox: ")]
    assert len(lines) == 1, said.read_text()
    assert "Traceback" not in said.read_text()
    return lines[0]


def test_killed_at_every_point_it_continues_bit_for_bit(
    command: list[str], whole: dict[str, Any], tmp_path: Path
) -> None:
    """A chain of sittings, each killed one point later than that before, from anew after each that got something done.

    So a sitting finds what many killed ones left; nothing that one of them spoilt would mend itself.
    """
    run, said = tmp_path / "run", tmp_path / "said"
    point, kills, before = 0, 0, done(run)
    while (code := sit(resumed(command, run), said, point=point)) == KILLED:
        point, kills, before = 0 if done(run) != before else point + 1, kills + 1, done(run)
    assert code == 0, said.read_text()
    assert taken(run) == whole
    # until the configuration is there, the state after the first epoch's steps, that after its evaluation, and the same
    # of the second; lines that an earlier sitting wrote are dropped at six points more
    assert kills == (3 + 1) + (3 + 1) + (6 + 15 + 1) + (6 + 3 + 1) + (6 + 15)


@pytest.mark.parametrize("seed", range(3))
def test_ended_at_random_moments_again_and_again_it_continues_bit_for_bit(
    seed: int, command: list[str], uninterrupted: tuple[dict[str, Any], float], tmp_path: Path
) -> None:
    whole, duration = uninterrupted
    choice = random.Random(seed)
    codes: list[int] = []
    latest = duration / 3  # once certainly before the end
    while 0 not in codes:
        process = begin(resumed(command, tmp_path / "run"), tmp_path / "said")
        number = choice.choice([signal.SIGKILL, signal.SIGKILL, signal.SIGTERM])
        codes.append(ended(process, choice.uniform(0, latest), number))
        latest = duration
        assert codes[-1] in (0, KILLED, -signal.SIGTERM, 128 + signal.SIGTERM), (tmp_path / "said").read_text()
    assert taken(tmp_path / "run") == whole
    assert len(codes) > 1


def test_killed_while_it_writes_a_cache_it_continues_bit_for_bit(command: list[str], tmp_path: Path) -> None:
    """Each sitting is killed a random number of points after its start; some of them lie in the cache's files."""
    run, said, options = tmp_path / "run", tmp_path / "said", ["--augmentation", "none", "--variants", "1"]
    assert sit([*command, *options, "--cache", tmp_path / "whole"], said) == 0, said.read_text()
    whole, choice, codes = taken(run), random.Random(0), [KILLED]
    while codes[-1] == KILLED:
        words = [*resumed(command, run), *options, "--cache", tmp_path / "parts"]
        codes.append(sit(words, said, point=choice.randrange(4, 40)))
    assert codes[-1] == 0, said.read_text()
    assert len(codes) > 4
    assert taken(run) == whole
    records = [{path.name for path in (tmp_path / name).rglob("*.safetensors")} for name in ("whole", "parts")]
    assert len(records[0]) == 6
    assert records[0] == records[1]


@pytest.mark.parametrize(
    ("file", "share"), [("metrics.jsonl", 1.5), ("best.safetensors", 0.9), ("last/state.safetensors", 0.9)]
)
def test_a_full_disk_leaves_the_last_good_checkpoint(
    file: str, share: float, command: list[str], whole: dict[str, Any], tmp_path: Path
) -> None:
    """No file may grow beyond a share of the one that shall fail, which is larger than those written before it."""
    run, said = tmp_path / "run", tmp_path / "said"
    # after the last step of the second epoch, of which the state is then known
    assert sit(command, said, point=END_OF_FIRST_EPOCH + 3) == KILLED
    old = content(run)
    assert sit([*command, "--resume"], said, room=int(share * len(old[file]))) == 2
    expected = f"refinebox: could not write {run / file} (File too large), so what stood there is unchanged; make room "
    assert the_line(said).startswith(expected)
    assert "--resume" in the_line(said)
    new = content(run)
    assert new.keys() == old.keys()
    assert new[file] == old[file]
    assert new["last/state.safetensors"] == old["last/state.safetensors"]
    assert refinebox.load_refiner(run / "best.safetensors").steps == 1
    assert sit([*command, "--resume"], said) == 0
    assert taken(run) == whole


@pytest.mark.parametrize(
    ("place", "reason"),
    [
        ("file/run", "{path}/file is a file, so {path}/file/run cannot be a folder; name another"),
        ("/proc/run", "could not write /proc/run/config.json (No such file or directory), so "),
    ],
)
def test_a_folder_that_cannot_be_written_is_said_before_the_training(
    place: str, reason: str, command: list[str], tmp_path: Path
) -> None:
    if place.startswith("/proc") and not Path("/proc/self").exists():
        pytest.skip("no /proc, which nobody can write")
    (tmp_path / "file").write_text("kept")
    assert sit([*command, "--output", tmp_path / place], tmp_path / "said") == 2
    assert the_line(tmp_path / "said").startswith("refinebox: " + reason.format(path=tmp_path))
    assert "epoch 1" not in (tmp_path / "said").read_text()
    assert (tmp_path / "file").read_text() == "kept"


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="no /proc, which tells a process's size")
@pytest.mark.parametrize(
    ("words", "advice"),
    [
        (
            "{train} --short-side 3000 --long-side 6000",
            "raise --accumulate, which --resume allows, or lower --batch-size",
        ),
        (
            "eval {detector} --data {data} --short-side 3000 --long-side 6000 --output {new}",
            "lower --batch-size, or lower",
        ),
        ("predict {detector} {data}/val --short-side 3000 --long-side 6000 --output {new}", "lower --short-side and"),
    ],
)
def test_memory_that_does_not_suffice_is_said(words: str, advice: str, command: list[str], tmp_path: Path) -> None:
    named = {"train": " ".join(command), "detector": command[2], "data": command[4], "new": tmp_path / "new"}
    assert sit(words.format(**named).split(), tmp_path / "said", memory=256 << 20) == 2
    assert the_line(tmp_path / "said").startswith("refinebox: out of memory")
    assert advice in the_line(tmp_path / "said")


def test_a_training_that_ran_out_of_memory_continues_in_smaller_parts(
    command: list[str], whole: dict[str, Any], tmp_path: Path
) -> None:
    assert sit(command, tmp_path / "said", point=END_OF_FIRST_EPOCH) == KILLED
    assert sit([*command, "--resume", "--accumulate", 3], tmp_path / "said") == 0
    found, wanted = taken(tmp_path / "run")["metrics.jsonl"], whole["metrics.jsonl"]
    assert found[0] == wanted[0]
    assert found[1]["loss"] == pytest.approx(wanted[1]["loss"], rel=0.05)  # padding differs


def test_a_loss_that_is_not_finite_ends_with_the_images(command: list[str], tmp_path: Path) -> None:
    assert sit([*command, "--learning-rate", 1e30], tmp_path / "said") == 2
    expected = r"refinebox: images \d(, \d)*: the loss is (nan|inf); lower the learning rate or check these images"
    assert re.fullmatch(expected, the_line(tmp_path / "said"))


def test_a_refiner_that_is_not_finite_is_found_by_the_evaluation(command: list[str], tmp_path: Path) -> None:
    """The only step of an epoch has spoilt it, which no loss has seen yet."""
    assert sit([*command, "--batch-size", 6, "--learning-rate", 1e30], tmp_path / "said") == 2
    assert the_line(tmp_path / "said").endswith(
        "is not finite; check the detector's weights, or train its refiner at a lower learning rate"
    )
    assert not (tmp_path / "run/best.safetensors").exists()
