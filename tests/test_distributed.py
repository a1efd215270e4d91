"""Two processes give what one gives."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import invocation
import pytest
import torch

from refinebox import distributed
from refinebox.detection.detector import Detector
from refinebox.detection.zoo import describe
from refinebox.files import checkpoint

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def detector_file(detector: Detector, tmp_path: Path) -> Path:
    path = tmp_path / "tiny.safetensors"
    checkpoint.write(path, detector.tensors(), {"kind": "detector", "detector": describe(detector)})
    return path


def command(processes: int, *arguments: str | Path) -> list[str]:
    launch = [] if processes == 1 else ["-m", "torch.distributed.run", "--nproc-per-node", str(processes)]
    launch += (
        [] if processes == 1 else ["--master-port", "0", "--rdzv-backend", "c10d", "--rdzv-endpoint", "127.0.0.1:0"]
    )
    return [sys.executable, *launch, "-m", "refinebox", *map(str, arguments)]


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}


def run(processes: int, *arguments: str | Path) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        command(processes, *arguments), env=environment(), capture_output=True, text=True, check=False, timeout=240
    )


def done(processes: int, *arguments: str | Path) -> str:
    completed = run(processes, *arguments)
    assert completed.returncode == 0, completed.stderr
    return completed.stdout


def test_alone_there_is_nothing_to_share() -> None:
    assert (distributed.rank(), distributed.processes()) == (0, 1)
    assert distributed.gathered([1, 2]) == [1, 2]
    assert torch.equal(distributed.total(torch.tensor([3.0])), torch.tensor([3.0]))


def test_processes_that_do_not_meet_are_told_how(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCAL_RANK", "0")

    def alone(*_: object, **__: object) -> None:
        raise ValueError("MASTER_ADDR expected")

    monkeypatch.setattr(torch.distributed, "init_process_group", alone)
    expected = r"^the processes do not find each other \(MASTER_ADDR expected\); start them with torchrun$"
    with pytest.raises(ConnectionError, match=expected):
        distributed.start("cpu")


def test_the_end_of_another_process_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_: torch.Tensor) -> None:
        raise RuntimeError("Connection closed by peer")

    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "all_reduce", broken)
    expected = r"^another process of this run has ended, see its own message; continue with --resume$"
    with pytest.raises(ConnectionError, match=expected):
        distributed.total(torch.zeros(1))


def test_training_and_evaluation_in_two_processes_equal_those_in_one(
    detector_file: Path, shapes_folder: Path, tmp_path: Path
) -> None:
    """Six images in batches of five: the second step has one image, which leaves the second process without any."""
    common = ["--data", shapes_folder, "--epochs", "2", "--batch-size", "5", "--jitter", "1"]
    common += ["--learning-rate", "1e-3", "--augmentation", "flip"]  # without padding, which depends on the share
    printed = {}
    for processes in (1, 2):
        printed[processes] = done(
            processes, "train", "--detector", detector_file, *common, "--output", tmp_path / f"run{processes}"
        )
    assert printed[2].count("epoch 1/2: loss") == printed[1].count("epoch 1/2: loss") == 1
    states = [checkpoint.read(tmp_path / f"run{processes}/last/state.safetensors")[0] for processes in (1, 2)]
    for name, tensor in states[0].items():
        if name.startswith("model."):
            assert (states[1][name] - tensor).norm() <= 1e-2 * tensor.norm() + 1e-3, name
    lines = [
        [json.loads(line) for line in (tmp_path / f"run{processes}/metrics.jsonl").read_text().splitlines()]
        for processes in (1, 2)
    ]
    for one, two in zip(*lines, strict=True):
        assert one["loss"] == pytest.approx(two["loss"], rel=1e-3)
        assert one["before"] == pytest.approx(two["before"], abs=1e-6)

    better = tmp_path / "better.safetensors"
    refiner = tmp_path / "run1/best.safetensors"
    done(1, "apply", "--detector", detector_file, "--refiner", refiner, "--output", better, "--force")
    for processes in (1, 2):
        results = tmp_path / f"results{processes}"
        done(processes, "eval", better, "--data", shapes_folder, "--batch-size", "3", "--output", results)
        done(processes, "predict", better, shapes_folder / "val", "--output", tmp_path / f"predicted{processes}")
    for name in ("before.json", "after.json"):
        assert (tmp_path / "results1" / name).read_text() == (tmp_path / "results2" / name).read_text()
    assert (tmp_path / "predicted1/results.json").read_text() == (tmp_path / "predicted2/results.json").read_text()
    assert len(list((tmp_path / "predicted2/pictures").iterdir())) == 4


def test_two_processes_rehearse(detector_file: Path, shapes_folder: Path, tmp_path: Path) -> None:
    """In one folder, in which each reads what the first has written."""
    words = ["train", "--detector", detector_file, "--data", shapes_folder, "--output", tmp_path / "run"]
    said = done(2, *words, "--batch-size", "2", "--recipe", "published", "--quality", "--dry-run")
    assert "dry run: 4 training and 4 validation images twice in " in said
    assert not (tmp_path / "run").exists()


def test_two_processes_count_unreadable_images_as_one_does(
    detector_file: Path, spoiled_folder: Path, tmp_path: Path
) -> None:
    """In steps of two images, of which each process takes one: some shares, and perhaps a step, are empty."""
    said = []
    for processes in (1, 2):
        output = tmp_path / f"run{processes}"
        arguments = ["--detector", detector_file, "--data", spoiled_folder, "--epochs", "1", "--batch-size", "2"]
        shown = done(processes, "train", *arguments, "--augmentation", "none", "--output", output)
        assert json.loads((output / "metrics.jsonl").read_text())["unreadable"] == 3
        said.append(shown[shown.index("; left out 3 images") :].splitlines()[0])
    assert said[0] == said[1]
    states = [checkpoint.read(tmp_path / f"run{processes}/last/state.safetensors")[0] for processes in (1, 2)]
    for name, tensor in states[0].items():
        if name.startswith("model."):
            assert (states[1][name] - tensor).norm() <= 1e-2 * tensor.norm() + 1e-3, name


def test_a_process_that_dies_ends_all_with_a_line(detector_file: Path, shapes_folder: Path, tmp_path: Path) -> None:
    arguments = ["--detector", detector_file, "--data", shapes_folder, "--epochs", "1000", "--output", tmp_path / "run"]
    started = subprocess.Popen(
        command(2, "train", *arguments, "--batch-size", "3"),
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 120
    while not (tmp_path / "run/last/state.safetensors").exists() and time.monotonic() < deadline:
        time.sleep(0.2)
    children = subprocess.run(["pgrep", "-P", str(started.pid)], capture_output=True, text=True, check=True)
    os.kill(int(children.stdout.split()[-1]), signal.SIGKILL)
    _, errors = started.communicate(timeout=120)
    assert started.returncode != 0
    # whichever notices first: the other process, in a line of ours, or torchrun
    said = "another process of this run has ended, see its own message; continue with --resume"
    assert said in errors or "SIGKILL" in errors


def test_two_processes_share_a_cache(detector_file: Path, shapes_folder: Path, tmp_path: Path) -> None:
    """What one of them saw the other reads in the next epoch, when the images are shared out anew."""
    common = ["--detector", detector_file, "--data", shapes_folder, "--epochs", "2", "--batch-size", "4"]
    common += ["--augmentation", "flip", "--variants", "1", "--cache", tmp_path / "cache"]
    for name in ("first", "second"):
        done(2, "train", *common, "--output", tmp_path / name)
        assert len(list((tmp_path / "cache").rglob("*.safetensors"))) == 6
    first, second = (
        [{**json.loads(line), "seconds": 0} for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()]
        for name in ("first", "second")
    )
    assert first == second


@pytest.mark.skipif(sys.platform == "win32", reason="Windows does not fork")
def test_two_processes_share_the_images_of_a_shard(detector_file: Path, shapes_folder: Path, tmp_path: Path) -> None:
    dataset = pytest.importorskip("pyarrow.dataset", reason="pyarrow is not installed; pip install -e '.[test]'")
    from sittings import begin, ended

    words = ["predict", detector_file, shapes_folder, "--recursive", "--device", "cpu", "--format", "parquet"]
    invocation.done(*words, "--output", tmp_path / "out1")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1]), "WORLD_SIZE": "2"}
    both = [
        begin(
            [*words, "--output", tmp_path / "out2"],
            tmp_path / f"said{rank}",
            {**meeting, "RANK": str(rank), "LOCAL_RANK": str(rank)},  # as torchrun says them
        )
        for rank in (0, 1)
    ]
    assert [ended(process) for process in both] == [0, 0], (tmp_path / "said0").read_text()
    found = []
    for number in (1, 2):
        rows = dataset.dataset(tmp_path / f"out{number}").to_table().to_pylist()
        found.append(sorted(rows, key=lambda row: str(row["image_id"])))
    assert found[0] == found[1]
    assert len(found[0]) == 10
    assert {path.name[:19] for path in (tmp_path / "out2").iterdir()} == {"part-00001-of-00002", "part-00002-of-00002"}
    assert "images in 1 parts" in (tmp_path / "said0").read_text()
