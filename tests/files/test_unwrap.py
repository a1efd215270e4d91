"""Checkpoints as training programs save them: whatever is around the tensors, the same come out."""

import argparse
import collections
import datetime
import json
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from refinebox.files import checkpoint
from refinebox.files.unwrap import model_in

RAW: dict[str, Tensor] = {
    "transformer.decoder.norm.weight": torch.arange(3.0),
    "backbone.0.body.conv1.weight": torch.ones(2, 2),
    "class_embed.bias": torch.tensor([0.5]),
}
EMA = {key: tensor + 1 for key, tensor in RAW.items()}
OTHERS: dict[str, Any] = {
    "epoch": 3,
    "optimizer": {"state": {0: {"exp_avg": torch.zeros(2)}}, "param_groups": [{"lr": 1e-4}]},
    "rng_state": torch.zeros(4, dtype=torch.uint8),
}


def prefixed(prefix: str, state: Mapping[str, Tensor] = RAW) -> dict[str, Tensor]:
    return {prefix + key: tensor for key, tensor in state.items()}


def assert_same(state: Mapping[str, Tensor], expected: Mapping[str, Tensor] = RAW) -> None:
    assert state.keys() == expected.keys()
    for key, tensor in expected.items():
        assert torch.equal(state[key], tensor)


PREFIXES = [
    *("", "module.", "_orig_mod.", "model.", "net.", "network.", "detector."),
    *("module._orig_mod.", "_orig_mod.module.", "model.module.", "model._orig_mod.module.", "module.model."),
]
KEYS = ["model", "state_dict", "model_state_dict", "model_state", "net", "network", "weights", "detector"]


@pytest.mark.parametrize("prefix", PREFIXES)
@pytest.mark.parametrize("key", [None, *KEYS])
def test_wrapped_weights_are_unwrapped(key: str | None, prefix: str) -> None:
    content = prefixed(prefix) if key is None else {**OTHERS, key: prefixed(prefix)}
    state, told = model_in(content)
    assert_same(state)
    assert told is None


def test_compiled_parts_lose_their_mark() -> None:
    state = {key.replace("body.", "body._orig_mod."): tensor for key, tensor in RAW.items()}
    assert_same(model_in({"model": state})[0])


def test_a_program_may_keep_a_criterion_beside_its_model() -> None:
    state = prefixed("model.") | {"criterion.empty_weight": torch.ones(3)}
    assert_same(model_in({"state_dict": state})[0], RAW | {"criterion.empty_weight": torch.ones(3)})


@pytest.mark.parametrize(
    "state",
    [
        {"model.backbone.conv.weight": torch.ones(1), "model.decoder.class_embed.0.weight": torch.ones(1)},
        {"model.0.conv.weight": torch.ones(1), "model.1.conv.weight": torch.ones(1)},
    ],
    ids=["transformers' RT-DETR", "numbered layers"],
)
def test_model_is_kept_where_it_belongs_to_the_names(state: dict[str, Tensor]) -> None:
    assert_same(model_in(state)[0], state)


TWO = {
    "timm": {"state_dict": RAW, "state_dict_ema": EMA},
    "RT-DETR": {"model": RAW, "ema": {"module": EMA, "updates": 7}},
    "model_ema": {"model": prefixed("module."), "model_ema": prefixed("module.", EMA)},
    "one dictionary": {"state_dict": prefixed("model.") | prefixed("ema_model.module.", EMA)},
    "AveragedModel": {"model": RAW, "ema_model": {"n_averaged": torch.tensor(3), **prefixed("module.", EMA)}},
    "inside": {"model": {"state_dict": RAW, "ema_state_dict": EMA}},
}


@pytest.mark.parametrize("content", TWO.values(), ids=TWO)
def test_of_two_sets_the_average_is_taken_and_told_unless_told_otherwise(content: dict[str, Any]) -> None:
    for ema in (None, True):
        state, told = model_in(content, ema)
        assert_same(state, EMA)
        assert told == "the moving average of the weights (ema); --no-ema takes the others"
    state, told = model_in(content, False)
    assert_same(state, RAW)
    assert told == "the weights as trained; --ema takes their moving average"


def test_an_average_alone_is_taken() -> None:
    assert_same(model_in({"ema": {"module": EMA}})[0], EMA)
    with pytest.raises(ValueError, match="holds nothing but a moving average of the weights; leave out --no-ema"):
        model_in({"ema": EMA}, False)


def test_a_missing_average_is_told() -> None:
    with pytest.raises(ValueError, match="holds no moving average of the weights; leave out --ema"):
        model_in({"model": RAW}, True)


def test_weights_under_another_key_are_found_where_there_is_one_such() -> None:
    assert_same(model_in({**OTHERS, "my_detector": RAW})[0])
    with pytest.raises(ValueError, match=r"holds no tensors by name, .* \(it has first, second\); expected a state"):
        model_in({"first": {"a": 1}, "second": 2})


def test_arrays_are_tensors() -> None:
    assert_same(model_in({key: tensor.numpy() for key, tensor in RAW.items()})[0])


HARMLESS = {
    "path": Path("runs/1"),
    "date": datetime.datetime(2026, 11, 26, 1, 2, tzinfo=datetime.UTC),
    "duration": datetime.timedelta(seconds=5),
    "array": np.arange(4.0),
    "bytes array": np.frombuffer(b"abc", dtype=np.uint8),
    "scalar": np.float32(0.5),
    "default dictionary": collections.defaultdict(list, {"loss": [0.5]}),
    "nested default": collections.defaultdict(dict, {"a": {"b": 1}}),
    "counter": collections.Counter("abca"),
    "namespace": argparse.Namespace(output=Path("x"), lr=1e-4),
    "set": {1, 2},
    "none": None,
}


@pytest.mark.parametrize("what", HARMLESS)
@pytest.mark.parametrize("zipped", [True, False])
def test_harmless_things_beside_tensors_are_read_past(what: str, zipped: bool, tmp_path: Path) -> None:
    content = {"model": RAW, "more": HARMLESS[what], "args": argparse.Namespace(value=HARMLESS[what])}
    torch.save(content, tmp_path / "file.pth", _use_new_zipfile_serialization=zipped)
    assert_same(checkpoint.read(tmp_path / "file.pth")[0])


def test_windows_paths_are_read_anywhere(tmp_path: Path) -> None:
    torch.save({"model": RAW, "more": Path("x")}, tmp_path / "file.pth", _use_new_zipfile_serialization=False)
    content = (tmp_path / "file.pth").read_bytes()
    assert content.count(b"PosixPath") == 1
    (tmp_path / "file.pth").write_bytes(content.replace(b"PosixPath", b"WindowsPath"))
    assert_same(checkpoint.read(tmp_path / "file.pth")[0])


def test_which_weights_were_taken_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save(TWO["RT-DETR"], tmp_path / "file.pth")
    assert_same(checkpoint.read(tmp_path / "file.pth")[0], EMA)
    assert "file.pth: took the moving average of the weights (ema)" in capsys.readouterr().out
    assert_same(checkpoint.read(tmp_path / "file.pth", ema=False)[0], RAW)
    assert "file.pth: took the weights as trained" in capsys.readouterr().out


def test_the_best_or_else_the_last_step_of_a_training_is_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for step in (5, 10, 100):
        (tmp_path / f"checkpoint-{step}").mkdir()
        state = {"step": torch.tensor(0), "weight": torch.tensor([step])}
        torch.save(state, tmp_path / f"checkpoint-{step}/pytorch_model.bin")
        (tmp_path / f"checkpoint-{step}/config.json").write_text(json.dumps({"step": step}))
    assert checkpoint.read(tmp_path)[0]["weight"].item() == 100
    assert "took checkpoint-100" in capsys.readouterr().out
    assert checkpoint.read_config(tmp_path) == {"step": 100}
    (tmp_path / "checkpoint-100/trainer_state.json").write_text('{"best_model_checkpoint": "runs/checkpoint-10"}')
    assert checkpoint.read(tmp_path)[0]["weight"].item() == 10
    assert checkpoint.read_config(tmp_path) == {"step": 10}
    assert checkpoint.file_sha256(tmp_path) == checkpoint.file_sha256(tmp_path / "checkpoint-10")


def spoiled(path: Path, kind: str) -> None:
    """A file of another kind under the name of a checkpoint."""
    arrays = {key: tensor.numpy() for key, tensor in RAW.items()}
    if kind == "pickle":
        path.write_bytes(pickle.dumps(arrays, protocol=4))
    elif kind == "npz":
        with path.open("wb") as file:
            np.savez(file, **arrays)
    elif kind == "onnx":
        path.write_bytes(b"\x08\x08\x12\x07pytorch\x1a\x052.6.0" + bytes(100))
    else:
        path.write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(100))


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        (
            "pickle",
            r"is a pickle of numpy arrays; where you trust it, torch\.save\(\{k: torch\.as_tensor.*is read$",
        ),
        ("npz", r"is an archive of numpy arrays; torch\.save\(.*numpy\.load\('file\.pth'\).*is read$"),
        ("onnx", r"is an ONNX model, .*; pass the checkpoint that it was exported from$"),
        ("hdf5", r"is an HDF5 file, .*torch\.save\(model\.state_dict\(\), \"weights\.pth\"\) writes one that is read$"),
    ],
)
def test_another_kind_of_file_is_told_with_the_way_out(kind: str, expected: str, tmp_path: Path) -> None:
    spoiled(tmp_path / "file.pth", kind)
    with pytest.raises(ValueError, match=rf"file\.pth {expected}"):
        checkpoint.read(tmp_path / "file.pth")


def test_a_script_is_told_with_the_way_out(tmp_path: Path) -> None:
    with pytest.warns(FutureWarning, match="deprecated"):
        torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), tmp_path / "file.pt")
    with pytest.raises(ValueError, match=r"file\.pt is a TorchScript archive, which is a program; in the program"):
        checkpoint.read(tmp_path / "file.pt")
