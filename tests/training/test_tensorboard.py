"""Event files, as TensorBoard itself reads them."""

import sys
import time
from pathlib import Path

import pytest

from refinebox.training.tensorboard import Board

LOSSES = {"loss": 3.0, "loss.refine.0.loss_bbox": 1.0, "loss.refine.0.loss_giou": 2.0}
LINE = {
    "epoch": 1,
    "loss": 2.5,
    "before": {"AP": 40.5, "APs": None},
    "after": {"AP": 42.0, "APs": None},
    "averaged": {"AP": 42.5},
    "seconds": 8.0,
}


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """Every curve that TensorBoard shows, as (step, value)."""
    reader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    events = reader.EventAccumulator(str(folder)).Reload()
    return {
        name: [(event.step, event.value) for event in events.Scalars(name)] for name in sorted(events.Tags()["scalars"])
    }


@pytest.fixture
def board(tmp_path: Path) -> Board:
    pytest.importorskip("tensorboard", reason="TensorBoard is an extra: pip install refinebox[tensorboard]")
    return Board(tmp_path / "run" / "tensorboard", 0)


def test_steps_and_epochs_are_read_back(board: Board, tmp_path: Path) -> None:
    board.losses(1, LOSSES, 0.25)
    board.losses(2, {name: loss / 2 for name, loss in LOSSES.items()}, 0.125)
    board.epoch(LINE, 2)
    board.close()
    assert scalars(tmp_path / "run" / "tensorboard") == {
        "after/AP": [(2, 42.0)],
        "averaged/AP": [(2, 42.5)],
        "before/AP": [(2, 40.5)],
        "epoch/loss": [(2, 2.5)],
        "epoch/seconds": [(2, 8.0)],
        "step/learning_rate": [(1, 0.25), (2, 0.125)],
        "step/loss": [(1, 3.0), (2, 1.5)],
        "step/loss.refine.0.loss_bbox": [(1, 1.0), (2, 0.5)],
        "step/loss.refine.0.loss_giou": [(1, 2.0), (2, 1.0)],
    }


def test_an_epoch_is_on_the_disk_before_the_run_ends(
    board: Board, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = pytest.importorskip("tensorboard.summary.writer.record_writer").RecordWriter
    write = writer.write

    def slowly(self: object, data: bytes) -> None:  # another thread writes; give it no chance to be done by accident
        time.sleep(0.02)
        write(self, data)

    monkeypatch.setattr(writer, "write", slowly)
    board.losses(1, LOSSES, 0.25)
    board.epoch(LINE, 1)
    assert scalars(tmp_path / "run" / "tensorboard")["after/AP"] == [(1, 42.0)]
    board.close()


def test_a_continued_run_overwrites_what_it_repeats_and_keeps_the_rest(board: Board, tmp_path: Path) -> None:
    folder = tmp_path / "run" / "tensorboard"
    for step in (1, 2, 3, 4, 5):
        board.losses(step, {"loss": float(step)}, 0.5)
        if step in (2, 4):
            board.epoch({"epoch": step // 2, "after": {"AP": float(step)}}, step)
    board.close()
    # killed while it wrote; the last state that was saved is that after step 2
    (file,) = folder.iterdir()
    file.write_bytes(file.read_bytes()[:-7])
    again = Board(folder, 2)
    for step in (3, 4):
        again.losses(step, {"loss": 10.0 * step}, 0.5)
    again.epoch({"epoch": 2, "after": {"AP": 40.0}}, 4)
    again.close()
    curves = scalars(folder)
    assert curves["step/loss"] == [(1, 1.0), (2, 2.0), (3, 30.0), (4, 40.0)]
    assert curves["after/AP"] == [(2, 2.0), (4, 40.0)]


def test_a_file_in_the_place_of_the_folder_is_refused(board: Board, tmp_path: Path) -> None:
    board.close()
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="file"):
        Board(tmp_path / "file", 0)


def test_a_missing_package_is_one_clear_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith("torch.utils.tensorboard")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "tensorboard", None)  # an import of it fails, installed or not
    with pytest.raises(ValueError, match=r"TensorBoard cannot be used \(.*tensorboard.*\); run: pip install ") as error:
        Board(tmp_path / "board", 0)
    assert str(error.value).endswith("pip install refinebox[tensorboard]")
    assert "\n" not in str(error.value)
    assert not (tmp_path / "board").exists()
