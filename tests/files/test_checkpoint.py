import argparse
import errno
import hashlib
import json
import os
import pickle
import subprocess
import sys
import types
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import Tensor

import refinebox
from refinebox.files import checkpoint


@pytest.fixture
def tensors() -> dict[str, Tensor]:
    return {
        "weight": torch.arange(6.0).reshape(2, 3),
        "steps": torch.tensor(7),
        "half": torch.tensor([0.5, -2.0], dtype=torch.bfloat16),
        "mask": torch.tensor([True, False]),
        "empty": torch.zeros(0, 4),
    }


def assert_same(actual: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    assert actual.keys() == expected.keys()
    for name, tensor in expected.items():
        torch.testing.assert_close(actual[name], tensor, rtol=0, atol=0)


def files_of(folder: Path) -> list[str]:
    return sorted(os.listdir(folder))


def test_what_was_written_is_read(tensors: dict[str, Tensor], tmp_path: Path) -> None:
    metadata = {"kind": "refiner", "epoch": 3, "ap": [41.5, None], "names": {"1": "Ärmel"}}
    checkpoint.write(tmp_path / "new" / "folder" / "file.safetensors", tensors, metadata)
    state, found = checkpoint.read(tmp_path / "new" / "folder" / "file.safetensors")
    assert_same(state, tensors)
    assert found == metadata


def test_files_are_plain_safetensors(tensors: dict[str, Tensor], tmp_path: Path) -> None:
    path = tmp_path / "file.safetensors"
    checkpoint.write(path, tensors, {"kind": "refiner"})
    assert_same(safetensors.torch.load_file(path), tensors)
    with safetensors.safe_open(path, framework="pt") as file:
        assert json.loads(file.metadata()["refinebox"]) == {"kind": "refiner"}


def test_views_that_need_gradients_are_written(tmp_path: Path) -> None:
    parameter = torch.nn.Parameter(torch.arange(6.0).reshape(2, 3))
    checkpoint.write(tmp_path / "file.safetensors", {"transposed": parameter.T}, {})
    assert_same(checkpoint.read(tmp_path / "file.safetensors")[0], {"transposed": parameter.detach().T})


def test_a_new_file_replaces_the_old_one_and_leaves_nothing_else(tensors: dict[str, Tensor], tmp_path: Path) -> None:
    for epoch in (1, 2):
        checkpoint.write(tmp_path / "file.safetensors", tensors, {"epoch": epoch})
    assert checkpoint.read(tmp_path / "file.safetensors")[1] == {"epoch": 2}
    assert files_of(tmp_path) == ["file.safetensors"]


def test_foreign_safetensors_have_no_metadata(tensors: dict[str, Tensor], tmp_path: Path) -> None:
    safetensors.torch.save_file(tensors, tmp_path / "file.safetensors", {"format": "pt"})
    state, metadata = checkpoint.read(tmp_path / "file.safetensors")
    assert_same(state, tensors)
    assert metadata == {}


def test_the_format_is_told_from_the_content(tensors: dict[str, Tensor], tmp_path: Path) -> None:
    checkpoint.write(tmp_path / "file.pth", tensors, {})
    torch.save(tensors, tmp_path / "file.safetensors")
    assert_same(checkpoint.read(tmp_path / "file.pth")[0], tensors)
    assert_same(checkpoint.read(tmp_path / "file.safetensors")[0], tensors)


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("beside", [None, {}, {"epoch": 11, "args": argparse.Namespace(lr=1e-4), "best": [0.5, "a"]}])
def test_pickled_state_dicts_are_read(
    beside: dict[str, Any] | None, zipped: bool, tensors: dict[str, Tensor], tmp_path: Path
) -> None:
    content = tensors if beside is None else {"model": tensors, **beside}
    torch.save(content, tmp_path / "file.pth", _use_new_zipfile_serialization=zipped)
    state, metadata = checkpoint.read(tmp_path / "file.pth")
    assert_same(state, tensors)
    assert metadata == {}


@pytest.mark.parametrize(
    "scalar",
    [np.float64(1.0), np.float32(1.0), np.float16(1.0), np.int64(1), np.int32(1), np.bool_(True)],
    ids=lambda scalar: type(scalar).__name__,
)
def test_numpy_scalars_beside_the_tensors_are_read(
    scalar: np.generic, tensors: dict[str, Tensor], tmp_path: Path
) -> None:
    torch.save({"model": tensors, "args": argparse.Namespace(value=scalar), "value": scalar}, tmp_path / "file.pth")
    assert_same(checkpoint.read(tmp_path / "file.pth")[0], tensors)


@pytest.mark.parametrize("module", ["numpy.core.multiarray", "numpy._core.multiarray"])
def test_numpy_scalars_of_both_major_versions_are_read(module: str, tensors: dict[str, Tensor], tmp_path: Path) -> None:
    ours = np.float64(0).__reduce__()[0].__module__
    torch.save(
        {"model": tensors, "value": np.float64(1.0)}, tmp_path / "file.pth", _use_new_zipfile_serialization=False
    )
    content = (tmp_path / "file.pth").read_bytes()
    assert ours.encode() in content
    (tmp_path / "file.pth").write_bytes(content.replace(ours.encode(), module.encode()))
    assert_same(checkpoint.read(tmp_path / "file.pth")[0], tensors)


class Code:
    """Runs a shell command when it is unpickled."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (self.command,)


def test_the_dangerous_pickle_of_these_tests_is_dangerous(tmp_path: Path) -> None:
    pickle.loads(pickle.dumps(Code(f"touch {tmp_path / 'executed'}")))
    assert files_of(tmp_path) == ["executed"]


@pytest.mark.parametrize("zipped", [True, False])
def test_pickles_that_carry_code_are_refused_and_not_run(
    zipped: bool, tensors: dict[str, Tensor], tmp_path: Path
) -> None:
    path = tmp_path / "file.pth"
    content = {"model": tensors, "code": Code(f"touch {tmp_path / 'executed'}")}
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(ValueError, match=r"file\.pth was not opened: .*; only checkpoints of plain tensors are read"):
        checkpoint.read(path)
    assert files_of(tmp_path) == ["file.pth"]


def test_pickles_without_torch_are_refused_and_not_run(tmp_path: Path) -> None:
    path = tmp_path / "file.pth"
    path.write_bytes(pickle.dumps({"code": Code(f"touch {tmp_path / 'executed'}")}, protocol=2))
    with pytest.raises(ValueError, match=r"file\.pth was not opened"):
        checkpoint.read(path)
    assert files_of(tmp_path) == ["file.pth"]


@pytest.mark.parametrize("zipped", [True, False])
def test_what_could_run_code_is_named(zipped: bool, tensors: dict[str, Tensor], tmp_path: Path) -> None:
    content = {"model": tensors, "code": Code("true")}
    torch.save(content, tmp_path / "file.pth", _use_new_zipfile_serialization=zipped)
    with pytest.raises(ValueError, match=rf"it holds {os.name}\.system, which could run code"):
        checkpoint.read(tmp_path / "file.pth")


def test_nobody_is_told_to_load_an_unsafe_file(tensors: dict[str, Tensor], tmp_path: Path) -> None:
    content = {"model": tensors, "code": Code("true")}
    torch.save(content, tmp_path / "file.pth", _use_new_zipfile_serialization=False)
    with pytest.raises(ValueError, match="was not opened") as caught:
        checkpoint.read(tmp_path / "file.pth")
    assert "weights_only" not in str(caught.value)


def test_modules_are_refused(tmp_path: Path) -> None:
    torch.save(torch.nn.Linear(2, 2), tmp_path / "file.pth")
    with pytest.raises(ValueError, match=r"it holds .*torch\.nn\.modules\.linear\.Linear.*, which could run code"):
        checkpoint.read(tmp_path / "file.pth")


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("share", [0.0, 0.1, 0.7, 0.99])
def test_a_truncated_pickle_is_an_error(share: float, zipped: bool, tensors: dict[str, Tensor], tmp_path: Path) -> None:
    path = tmp_path / "file.pth"
    torch.save(tensors, path, _use_new_zipfile_serialization=zipped)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(ValueError, match=r"file\.pth is damaged, incomplete or no checkpoint \(.*\); copy or download"):
        checkpoint.read(path)


@pytest.mark.parametrize("length", [8, 9, 50, -1])
def test_a_truncated_safetensors_file_is_an_error(length: int, tensors: dict[str, Tensor], tmp_path: Path) -> None:
    path = tmp_path / "file.safetensors"
    checkpoint.write(path, tensors, {})
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(ValueError, match=r"file\.safetensors is damaged.*incomplete.*; copy or download it again"):
        checkpoint.read(path)


def test_damaged_metadata_is_an_error(tensors: dict[str, Tensor], tmp_path: Path) -> None:
    safetensors.torch.save_file(tensors, tmp_path / "file.safetensors", {"refinebox": "{oops"})
    with pytest.raises(
        ValueError, match=r"file\.safetensors is damaged or incomplete \(.*\); copy or download it again"
    ):
        checkpoint.read(tmp_path / "file.safetensors")


@pytest.mark.parametrize(
    "text", ["hello, world\n", "<!DOCTYPE html>\n<html></html>\n", "version https://git-lfs\n", '{"a": 1}']
)
def test_a_text_file_is_an_error(text: str, tmp_path: Path) -> None:
    path = tmp_path / "file.pth"
    path.write_text(text)
    expected = r"file\.pth (is damaged, incomplete or no checkpoint|was not opened)"
    with pytest.raises(ValueError, match=expected) as caught:
        checkpoint.read(path)
    assert "weights_only" not in str(caught.value)


def test_a_missing_file_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no checkpoint at .*none\.pth; check the path"):
        checkpoint.read(tmp_path / "none.pth")


CHECKPOINTS = ["model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json"]


def test_a_folder_without_a_checkpoint_says_what_was_expected(tmp_path: Path) -> None:
    (tmp_path / "other.pth").touch()
    expected = rf"^{tmp_path} holds no checkpoint; expected one of {', '.join(CHECKPOINTS)}$"
    for read in (checkpoint.read, checkpoint.file_sha256):
        with pytest.raises(FileNotFoundError, match=expected):
            read(tmp_path)


def test_the_checkpoint_of_a_folder_is_read(tensors: dict[str, Tensor], tmp_path: Path) -> None:
    torch.save(tensors, tmp_path / "pytorch_model.bin")
    assert_same(checkpoint.read(tmp_path)[0], tensors)
    safetensors.torch.save_file({"first": torch.ones(2)}, tmp_path / "model.safetensors")
    assert_same(checkpoint.read(tmp_path)[0], {"first": torch.ones(2)})


def shards(folder: Path, tensors: dict[str, Tensor], suffix: str) -> Path:
    """Every tensor in a shard of its own, and the index, which is returned."""
    names = {name: f"{number}{suffix}" for number, name in enumerate(tensors)}
    for name, shard in names.items():
        if suffix == ".bin":
            torch.save({name: tensors[name]}, folder / shard)
        else:
            safetensors.torch.save_file({name: tensors[name]}, folder / shard)
    index = folder / f"{'pytorch_model' if suffix == '.bin' else 'model'}{suffix}.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": names}))
    return index


@pytest.mark.parametrize("suffix", [".safetensors", ".bin"])
def test_shards_are_read_as_one(suffix: str, tensors: dict[str, Tensor], tmp_path: Path) -> None:
    index = shards(tmp_path, tensors, suffix)
    for path in (index, tmp_path):
        state, metadata = checkpoint.read(path)
        assert_same(state, tensors)
        assert metadata == {}


def test_a_missing_shard_is_named(tensors: dict[str, Tensor], tmp_path: Path) -> None:
    index = shards(tmp_path, tensors, ".safetensors")
    (tmp_path / "2.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=rf"^no checkpoint at {tmp_path / '2.safetensors'}; check the path$"):
        checkpoint.read(index)


def test_a_tensor_that_no_shard_holds_is_named(tensors: dict[str, Tensor], tmp_path: Path) -> None:
    index = shards(tmp_path, tensors, ".safetensors")
    content = json.loads(index.read_text())
    content["weight_map"]["lost"] = "0.safetensors"
    index.write_text(json.dumps(content))
    expected = rf"^{index} lists lost, which no shard holds; copy or download the shards again$"
    with pytest.raises(ValueError, match=expected):
        checkpoint.read(index)


@pytest.mark.parametrize("names", [None, {}, [1], {"a": 3}, {"a": "../other.safetensors"}])
def test_an_index_that_names_no_files_is_refused(names: Any, tmp_path: Path) -> None:
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": names}))
    expected = rf"^{index} is no index of shards; expected the file name of every tensor under 'weight_map'$"
    with pytest.raises(ValueError, match=expected):
        checkpoint.read(index)


@pytest.mark.parametrize("text", ["", "{oops", "[1, 2]"])
def test_a_damaged_index_is_named(text: str, tmp_path: Path) -> None:
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(text)
    with pytest.raises(ValueError, match=rf"^{index} is damaged \(.*\); copy or download it again$"):
        checkpoint.read(tmp_path)


def test_the_hash_of_shards_is_that_of_their_hashes(tensors: dict[str, Tensor], tmp_path: Path) -> None:
    index = shards(tmp_path, tensors, ".safetensors")
    files = sorted(tmp_path.glob("*.safetensors"))
    expected = hashlib.sha256("".join(hashlib.sha256(file.read_bytes()).hexdigest() for file in files).encode())
    assert len(files) == 5
    assert checkpoint.file_sha256(tmp_path) == checkpoint.file_sha256(index) == expected.hexdigest()


def test_the_hash_of_a_folder_is_that_of_its_checkpoint(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"content")
    assert checkpoint.file_sha256(tmp_path) == hashlib.sha256(b"content").hexdigest()


def test_metadata_is_read_without_tensors(tensors: dict[str, Tensor], tmp_path: Path) -> None:
    checkpoint.write(tmp_path / "ours.safetensors", tensors, {"kind": "refiner"})
    safetensors.torch.save_file(tensors, tmp_path / "theirs.safetensors")
    torch.save(tensors, tmp_path / "theirs.pth")
    assert checkpoint.read_metadata(tmp_path / "ours.safetensors") == {"kind": "refiner"}
    for name in ("theirs.safetensors", "theirs.pth", "none.pth"):
        assert checkpoint.read_metadata(tmp_path / name) == {}


def test_the_configuration_is_read_beside_a_checkpoint_and_in_its_folder(tmp_path: Path) -> None:
    assert checkpoint.read_config(tmp_path) == {}
    (tmp_path / "config.json").write_text('{"dilation": true, "size": 1}')
    (tmp_path / "preprocessor_config.json").write_text('{"size": 2, "max_size": 3}')
    for path in (tmp_path, tmp_path / "model.safetensors"):
        assert checkpoint.read_config(path) == {"dilation": True, "size": 1, "max_size": 3}


@pytest.mark.parametrize("name", ["config.json", "preprocessor_config.json"])
def test_a_damaged_configuration_is_named(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text("{oops")
    with pytest.raises(ValueError, match=rf"^{tmp_path / name} is damaged \(.*\); copy or download it again$"):
        checkpoint.read_config(tmp_path)


@pytest.mark.parametrize(
    "content",
    [
        {},
        {"model": {}},
        {"model": 5},
        {"optimizer": {"state": {0: {"exp_avg": torch.zeros(2)}}}},
        [torch.zeros(2)],
        torch.zeros(2),
    ],
    ids=["empty", "empty model", "no state dict", "optimizer", "list", "tensor"],
)
def test_a_file_without_tensors_by_name_is_an_error(content: Any, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "file.pth")
    with pytest.raises(ValueError, match=r"file\.pth holds no tensors by name, neither at the top nor under 'model'"):
        checkpoint.read(tmp_path / "file.pth")


def test_a_safetensors_file_without_tensors_is_an_error(tmp_path: Path) -> None:
    safetensors.torch.save_file({}, tmp_path / "file.safetensors")
    with pytest.raises(ValueError, match="holds no tensors"):
        checkpoint.read(tmp_path / "file.safetensors")


FILL_THE_DISK = """
import resource, sys
from pathlib import Path
import torch
from refinebox.files import checkpoint

resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
try:
    checkpoint.write(Path(sys.argv[1]), {"weight": torch.ones(100_000)}, {})
except OSError as error:
    sys.exit(str(error))
"""


def test_a_file_that_does_not_fit_leaves_the_old_one_as_it_was(tensors: dict[str, Tensor], tmp_path: Path) -> None:
    pytest.importorskip("resource")
    path = tmp_path / "file.safetensors"
    checkpoint.write(path, tensors, {"epoch": 1})
    old = path.read_bytes()
    command = [sys.executable, "-c", FILL_THE_DISK, str(path)]
    folder = Path(refinebox.__file__).parents[1]
    completed = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert completed.stderr == (
        f"could not write {path} (File too large), so what stood there is unchanged; make room or name a folder that "
        "can be written, and repeat the command, a training with --resume\n"
    )
    assert path.read_bytes() == old
    assert files_of(tmp_path) == ["file.safetensors"]


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()])
def test_a_write_that_fails_leaves_the_old_file_as_it_was(
    error: BaseException, tensors: dict[str, Tensor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: int) -> NoReturn:
        raise error

    path = tmp_path / "file.safetensors"
    checkpoint.write(path, tensors, {"epoch": 1})
    old = path.read_bytes()
    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(type(error)):
        checkpoint.write(path, tensors, {"epoch": 2})
    assert path.read_bytes() == old
    assert files_of(tmp_path) == ["file.safetensors"]


def test_a_first_write_that_fails_leaves_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: int) -> NoReturn:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="No space left on device"):
        checkpoint.write_bytes(tmp_path / "file", b"content")
    assert files_of(tmp_path) == []


def test_a_folder_that_cannot_be_made_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("kept")
    with pytest.raises(
        OSError, match=r"^could not write .*file/new/weights \(Not a directory\), .*; make room or name"
    ):
        checkpoint.write_bytes(tmp_path / "file/new/weights", b"content")
    assert (tmp_path / "file").read_text() == "kept"


def test_a_folder_in_the_place_of_the_file_is_said(tmp_path: Path) -> None:
    (tmp_path / "weights").mkdir()
    with pytest.raises(
        OSError, match=r"^could not write .*weights \(Is a directory\), so what stood there is unchanged"
    ):
        checkpoint.write_bytes(tmp_path / "weights", b"content")
    assert files_of(tmp_path) == ["weights"]


def test_what_killed_writers_left_is_removed(tensors: dict[str, Tensor], tmp_path: Path) -> None:
    kept = [".a[1].safetensors.part", ".a[1].safetensors.5.old", ".b.safetensors.77", "a[1].safetensors.77"]
    for name in [".a[1].safetensors.77", ".a[1].safetensors.123456", *kept]:
        (tmp_path / name).write_text("half")
    checkpoint.write(tmp_path / "a[1].safetensors", tensors, {})
    assert files_of(tmp_path) == sorted([*kept, "a[1].safetensors"])


def test_json_is_readable_and_ends_with_a_newline(tmp_path: Path) -> None:
    content = {"AP": 41.5, "APs": None, "files": ["a", "b"]}
    checkpoint.write_json(tmp_path / "file.json", content)
    text = (tmp_path / "file.json").read_text()
    assert json.loads(text) == content
    assert text.startswith('{\n  "AP": 41.5,\n')
    assert text.endswith("}\n")


def test_a_files_hash_is_that_of_its_bytes(tmp_path: Path) -> None:
    content = os.urandom(100_000)
    (tmp_path / "file").write_bytes(content)
    assert checkpoint.file_sha256(tmp_path / "file") == hashlib.sha256(content).hexdigest()


def test_the_hash_of_tensors_is_that_of_names_types_shapes_and_values() -> None:
    tensors = {"b": torch.tensor([1, 2]), "a": torch.tensor([[0.5]])}
    expected = hashlib.sha256(b"a torch.float32 (1, 1) " + np.float32(0.5).tobytes())
    expected.update(b"b torch.int64 (2,) " + np.array([1, 2]).tobytes())
    assert checkpoint.tensors_sha256(tensors) == expected.hexdigest()


def test_the_hash_of_tensors_does_not_depend_on_the_file(tensors: dict[str, Tensor], tmp_path: Path) -> None:
    checkpoint.write(tmp_path / "file.safetensors", tensors, {"epoch": 1})
    torch.save({"model": tensors}, tmp_path / "file.pth")
    expected = checkpoint.tensors_sha256(tensors)
    assert checkpoint.tensors_sha256(checkpoint.read(tmp_path / "file.safetensors")[0]) == expected
    assert checkpoint.tensors_sha256(checkpoint.read(tmp_path / "file.pth")[0]) == expected


def test_the_hash_of_tensors_depends_on_neither_order_nor_strides() -> None:
    weight, bias = torch.arange(6.0).reshape(2, 3), torch.ones(3)
    transposed = weight.T.contiguous().T
    assert not transposed.is_contiguous()
    assert checkpoint.tensors_sha256({"a": weight, "b": bias}) == checkpoint.tensors_sha256(
        {"b": bias, "a": transposed}
    )


@pytest.mark.parametrize(
    "other",
    [
        {"a": torch.tensor([[1.0, 2.0], [3.0, 5.0]])},
        {"b": torch.tensor([[1.0, 2.0], [3.0, 4.0]])},
        {"a": torch.tensor([1.0, 2.0, 3.0, 4.0])},
        {"a": torch.tensor([[1.0, 2.0], [3.0, 4.0]]).view(torch.int32)},
        {"a": torch.tensor([[1.0, 2.0], [3.0, 4.0]]), "b": torch.zeros(0)},
        {},
    ],
    ids=["value", "name", "shape", "type", "more", "fewer"],
)
def test_the_hash_of_tensors_tells_them_apart(other: dict[str, Tensor]) -> None:
    tensors = {"a": torch.tensor([[1.0, 2.0], [3.0, 4.0]])}
    assert checkpoint.tensors_sha256(other) != checkpoint.tensors_sha256(tensors)


def test_mmdetections_files_are_read_with_what_they_say(tensors: dict[str, Tensor], tmp_path: Path) -> None:
    meta = {"dataset_meta": {"classes": ("cat", "dog"), "palette": [(1, 2, 3)]}, "cfg": "model = dict()", "iter": 3}
    torch.save({"state_dict": tensors, "meta": meta}, tmp_path / "file.pth")
    state, metadata, found = checkpoint.read_all(tmp_path / "file.pth")
    assert_same(state, tensors)
    assert (metadata, found) == ({}, meta)


def test_other_files_say_nothing(tensors: dict[str, Tensor], tmp_path: Path) -> None:
    torch.save(tensors, tmp_path / "plain.pth")
    torch.save({"state_dict": tensors, "meta": "text"}, tmp_path / "text.pth")
    checkpoint.write(tmp_path / "file.safetensors", tensors, {})
    for name in ("plain.pth", "text.pth", "file.safetensors"):
        assert checkpoint.read_all(tmp_path / name)[2] == {}


def test_pickled_configurations_of_mmdetection_are_refused_with_the_way_out(
    tensors: dict[str, Tensor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = type("ConfigDict", (dict,), {"__module__": "mmengine.config.config"})
    module = types.ModuleType("mmengine.config.config")
    module.ConfigDict = config  # type: ignore[attr-defined]
    for name in ("mmengine", "mmengine.config"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    monkeypatch.setitem(sys.modules, "mmengine.config.config", module)
    torch.save({"state_dict": tensors, "meta": {"cfg": config(lr=1)}}, tmp_path / "file.pth")
    expected = (
        r"file\.pth was not opened: it holds mmengine\.config\.config\.ConfigDict, which could run code; only "
        r"checkpoints of plain tensors are read; in its environment, mmdetection's tools/model_converters/"
        r"publish_model\.py writes .* torch\.save\(\{'state_dict': checkpoint\['state_dict'\]\}, 'weights\.pth'\)$"
    )
    with pytest.raises(ValueError, match=expected):
        checkpoint.read(tmp_path / "file.pth")
