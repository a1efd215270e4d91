"""A real cluster of two workers, one of which is killed: the rows of one process, none lost and none twice."""

import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from refinebox.detection.detector import Detector
from refinebox.detection.zoo import describe
from refinebox.files import checkpoint
from refinebox.report.batch import COLUMNS, Refine

ROOT = Path(__file__).resolve().parents[2]
IMAGES, BATCH = 200, 10
# in a process of its own: Ray warns, starts threads, and leaves none of it behind when it ends
SCRIPT = """
import os, signal, sys
from pathlib import Path

import ray
from refinebox.batch import Refine

model, images, output, place = map(Path, sys.argv[1:])


class Mortal(Refine):
    '''Dies with its process in the middle of its third batch, but only once in all.'''

    rows = 0

    def _row(self, image_id, item):
        self.rows += 1
        (place / f"worker-{os.getpid()}").touch()
        if self.rows == 25 and not (place / "killed").exists():
            try:
                (place / "killed").touch(exist_ok=False)
            except FileExistsError:
                pass
            else:
                os.kill(os.getpid(), signal.SIGKILL)
        return super()._row(image_id, item)


ray.init(num_cpus=2, include_dashboard=False, object_store_memory=80 * 2**20, _temp_dir=str(place / "ray"))
data = ray.data.from_items([{"path": str(path)} for path in sorted(images.iterdir())], override_num_blocks=20)
data.map_batches(
    Mortal,
    fn_constructor_kwargs={"model": model, "device": "cpu", "threshold": 0.3},
    batch_size=10,
    batch_format="pyarrow",
    compute=ray.data.ActorPoolStrategy(size=2),
).write_parquet(str(output))
ray.shutdown()
"""

if importlib.util.find_spec("ray") is None or sys.platform == "win32":
    pytest.skip("Ray is not installed, or nothing can be killed", allow_module_level=True)


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder with a short name, as those of sockets must be."""
    folder = Path(tempfile.mkdtemp(prefix="rb", dir="/tmp"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


def test_a_killed_worker_loses_and_doubles_nothing(detector: Detector, tmp_path: Path, place: Path) -> None:
    dataset = pytest.importorskip("pyarrow.dataset")
    model, images, output = tmp_path / "model.safetensors", tmp_path / "images", tmp_path / "rows"
    checkpoint.write(model, detector.tensors(), {"kind": "detector", "detector": describe(detector)})
    images.mkdir()
    random = np.random.default_rng(0)
    for number in range(IMAGES):
        Image.fromarray(random.integers(0, 256, (24, 32, 3), dtype=np.uint8)).save(images / f"{number:03}.png")
    (images / "111.png").write_text("no image")

    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_AUTH_MODE": "disabled",
        "RAY_worker_niceness": "0",  # or a busy machine lets them starve
    }
    completed = subprocess.run(
        [sys.executable, "-c", SCRIPT, model, images, output, place],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )
    assert completed.returncode == 0, completed.stdout + completed.stderr
    assert (place / "killed").exists()
    assert len(list(place.glob("worker-*"))) == 3  # two, and the one that took over

    columns = Refine(model, device="cpu", threshold=0.3)({"path": sorted(map(str, images.iterdir()))})
    expected = [dict(zip(COLUMNS, row, strict=True)) for row in zip(*(columns[name] for name in COLUMNS), strict=True)]
    found: list[dict[str, Any]] = dataset.dataset(output).to_table().to_pylist()
    found.sort(key=lambda row: row["image_id"])
    assert [row["image_id"] for row in found] == columns["image_id"]
    assert found == expected
    assert [row["image_id"] for row in found if row["error"]] == [str(images / "111.png")]
    assert sum(bool(row["boxes"]) for row in found) > 0
