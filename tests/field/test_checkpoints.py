"""One state dict in every wrapping that training programs know: all of it comes out, or one line says why not."""

import argparse
import collections
import datetime
import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from refinebox.files import checkpoint

STATE = {
    "backbone.0.body.conv1.weight": torch.arange(6.0).reshape(2, 3),
    "transformer.decoder.norm.weight": torch.ones(3, dtype=torch.float16),
    "class_embed.bias": torch.tensor([0.5, -0.5]),
    "bbox_embed.layers.0.weight": torch.zeros(2, 2),
    "query_embed.weight": torch.tensor([[7.0]]),
}
KEYS = ("", "model", "state_dict", "model_state_dict", "net", "weights", "ema", "model_ema", "my_model")
PREFIXES = ("", "module.", "_orig_mod.", "model.", "model.module.", "module._orig_mod.", "net.", "detector.model.")
BESIDE: dict[str, dict[str, Any]] = {
    "nothing": {},
    "numbers": {"epoch": 3, "best": 0.5, "done": True, "name": "run", "none": None},
    "optimizer": {
        "optimizer": {
            "state": {0: {"exp_avg": torch.zeros(2), "step": torch.tensor(1.0)}},
            "param_groups": [{"lr": 1}],
        },
        "lr_scheduler": {"last_epoch": 3},
    },
    "harmless": {
        "args": argparse.Namespace(output=Path("x"), started=datetime.datetime(2026, 1, 1)),
        "history": collections.defaultdict(list, {"loss": [np.float64(0.5)]}),
        "array": np.arange(3),
        "rng_state": torch.zeros(4, dtype=torch.uint8),
    },
}
WRAPPINGS = list(itertools.product(KEYS, PREFIXES, BESIDE))


@pytest.mark.parametrize(("key", "prefix", "beside"), WRAPPINGS, ids=["-".join(item) for item in WRAPPINGS])
def test_every_tensor_comes_out(key: str, prefix: str, beside: str, tmp_path: Path) -> None:
    state = {prefix + name: tensor for name, tensor in STATE.items()}
    content = {key: state, **BESIDE[beside]} if key else {**state, **BESIDE[beside]}
    torch.save(content, tmp_path / "file.pth")
    found, _ = checkpoint.read(tmp_path / "file.pth")
    assert {name: tensor for name, tensor in found.items() if name != "array"}.keys() == STATE.keys()
    for name, tensor in STATE.items():
        assert torch.equal(found[name], tensor)


SPOILED: dict[str, Any] = {
    "nothing": None,
    "number": 5,
    "text": "weights",
    "list": [torch.zeros(2)],
    "empty": {},
    "numbers": {"a": 1},
    "nested nothing": {"model": {"a": {"b": None}}},
    "two models": {"first": dict(STATE), "second": dict(STATE)},
    "text array": {"a": np.array(["x"])},
}


@pytest.mark.parametrize("content", SPOILED.values(), ids=SPOILED)
def test_what_holds_no_model_is_one_line(content: Any, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "file.pth")
    with pytest.raises(ValueError, match=r"file\.pth ") as caught:
        checkpoint.read(tmp_path / "file.pth")
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 600


@pytest.mark.parametrize("share", [0.0, 0.01, 0.3, 0.7, 0.99])
@pytest.mark.parametrize("zipped", [True, False])
def test_what_is_cut_off_is_one_line(share: float, zipped: bool, tmp_path: Path) -> None:
    torch.save({"model": STATE}, tmp_path / "file.pth", _use_new_zipfile_serialization=zipped)
    whole = (tmp_path / "file.pth").read_bytes()
    (tmp_path / "file.pth").write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(ValueError, match=r"file\.pth is damaged") as caught:
        checkpoint.read(tmp_path / "file.pth")
    assert "\n" not in str(caught.value)
