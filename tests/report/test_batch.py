"""Batches for other programs: the same as predict, sent cheaply, and no image lost."""

import json
import pickle
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch
from invocation import done
from PIL import Image
from refinebox.batch import COLUMNS, Refine

from refinebox.detection.detector import Detector
from refinebox.detection.given import Given
from refinebox.detection.zoo import describe
from refinebox.files import checkpoint
from refinebox.refinement.refiner import Refiner
from refinebox.training.run import write_refiner
from refinebox.training.settings import Settings


@pytest.fixture
def upgraded(detector: Detector, tmp_path: Path) -> Path:
    plain, best, better = (tmp_path / f"{name}.safetensors" for name in ("plain", "best", "better"))
    checkpoint.write(plain, detector.tensors(), {"kind": "detector", "detector": describe(detector)})
    torch.manual_seed(5)
    refiner = Refiner(detector.channels, detector.strides)
    write_refiner(best, refiner, detector, asdict(Settings()), {"before": None, "after": None})
    done("apply", "--detector", plain, "--refiner", best, "--output", better)
    return better


@pytest.fixture
def images(shapes_folder: Path) -> list[str]:
    return sorted(map(str, (shapes_folder / "val").iterdir()))


def test_rows_are_those_of_predict(upgraded: Path, images: list[str], tmp_path: Path) -> None:
    done("predict", upgraded, *images, "--output", tmp_path / "predicted", "--device", "cpu")
    wanted = json.loads((tmp_path / "predicted/results.json").read_text())
    found = Refine(upgraded, device="cpu", threshold=0)({"path": images})
    assert tuple(found) == COLUMNS
    assert found["image_id"] == images
    rows = [
        (path, score, [box[0], box[1], box[2] - box[0], box[3] - box[1]], label)
        for path, *columns in zip(*(found[name] for name in COLUMNS[:4]), strict=True)
        for box, score, label in zip(*columns, strict=True)
    ]
    assert len(rows) == len(wanted)
    for (path, score, box, label), other in zip(rows, wanted, strict=True):
        assert (path, label) == (other["file_name"], other["category_id"])
        assert score == pytest.approx(other["score"], abs=1e-4)
        assert box == pytest.approx(other["bbox"], abs=0.01)


def test_bytes_are_read_as_files_are(upgraded: Path, images: list[str]) -> None:
    refine = Refine(upgraded, device="cpu")
    paths = refine({"path": images})
    content = refine({"bytes": [Path(path).read_bytes() for path in images], "image_id": images, "path": ["none"] * 4})
    assert content == paths
    assert refine({"bytes": [Path(images[0]).read_bytes()]})["image_id"] == [0]


def test_how_far_boxes_moved(upgraded: Path, images: list[str], tmp_path: Path) -> None:
    found = Refine(upgraded, device="cpu", threshold=0)({"path": images})
    plain = Refine(tmp_path / "plain.safetensors", device="cpu", threshold=0)({"path": images})
    for boxes, before, moved in zip(found["boxes"], plain["boxes"], found["moved"], strict=True):
        wanted = [max(abs(a - b) for a, b in zip(*pair, strict=True)) for pair in zip(boxes, before, strict=True)]
        assert moved == pytest.approx(wanted, abs=1e-3)
    assert max(map(max, found["moved"])) > 0
    assert {far for image in plain["moved"] for far in image} == {0.0}


def test_low_scores_are_left_out(upgraded: Path, images: list[str]) -> None:
    everything = Refine(upgraded, device="cpu", threshold=0)({"path": images[:1]})
    middle = sorted(everything["scores"][0])[len(everything["scores"][0]) // 2]
    some = Refine(upgraded, device="cpu", threshold=middle)({"path": images[:1]})
    count = sum(score >= middle for score in everything["scores"][0])
    assert [len(some[name][0]) for name in ("boxes", "scores", "labels", "moved")] == [count] * 4


def test_what_cannot_be_read_is_a_row(upgraded: Path, images: list[str], tmp_path: Path) -> None:
    (tmp_path / "broken.jpg").write_text("no image")
    found = Refine(upgraded, device="cpu")(
        {"path": [str(tmp_path / "broken.jpg"), str(tmp_path / "none.jpg"), images[0]]}
    )
    assert found["boxes"][:2] == [[], []]
    assert "broken.jpg is not a readable image" in found["error"][0]
    assert found["error"][1:] == [f"{tmp_path / 'none.jpg'} is not there", None]
    [error] = Refine(upgraded, device="cpu")({"bytes": [b"nothing"]})["error"]
    assert error.startswith("the content is not a readable image: ")


def test_exif_counts_in_bytes_too(upgraded: Path, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    path = tmp_path / "turned.jpg"
    Image.linear_gradient("L").resize((80, 48)).save(path, exif=exif)
    refine = Refine(upgraded, device="cpu", threshold=0)
    content = {"bytes": [path.read_bytes()], "image_id": [str(path)]}
    assert refine(content) == refine({"path": [str(path)]})


def test_what_comes_is_what_goes(upgraded: Path, images: list[str]) -> None:
    """Columns of Arrow, pandas and NumPy hold the same as lists do."""
    arrow, pandas = (pytest.importorskip(name, reason="pip install -e '.[test]'") for name in ("pyarrow", "pandas"))
    refine = Refine(upgraded, device="cpu")
    lists = refine({"path": images})
    assert refine({"path": np.array(images, dtype=object)}) == lists
    found = refine(arrow.table({"path": images, "more": images}))
    assert found.to_pydict() == lists
    frame = refine(pandas.DataFrame({"path": images}))
    assert isinstance(frame, pandas.DataFrame)
    assert frame.to_dict("list") == lists
    # as Spark turns a frame into what its schema says
    assert arrow.Table.from_pandas(frame, schema=found.schema, preserve_index=False).to_pydict() == lists


def test_arrow_has_the_same_types_whatever_is_found(upgraded: Path, images: list[str], tmp_path: Path) -> None:
    """Blocks of a large data set are put together only if they agree."""
    arrow = pytest.importorskip("pyarrow", reason="pyarrow is not installed; pip install -e '.[test]'")
    (tmp_path / "broken.jpg").write_text("no image")
    broken = [str(tmp_path / "broken.jpg")]
    some, strict = Refine(upgraded, device="cpu"), Refine(upgraded, device="cpu", threshold=1)
    tables = [some(arrow.table({"path": arrow.array(paths, arrow.string())})) for paths in (images, broken, [])]
    tables.append(strict(arrow.table({"path": images})))
    assert [found.num_rows for found in tables] == [4, 1, 0, 4]
    assert len({found.schema for found in tables}) == 1
    assert tables[0].schema.names == list(COLUMNS)
    assert [str(field.type) for field in tables[0].schema][1:] == [
        "list<item: list<item: float>>",
        "list<item: float>",
        "list<item: int64>",
        "list<item: float>",
        "int32",
        "int32",
        "string",
    ]
    assert tables[3]["boxes"].to_pylist() == [[]] * 4
    assert arrow.concat_tables(tables).num_rows == 9


def test_contents_come_before_paths(upgraded: Path, images: list[str]) -> None:
    """Object storage gives both, and only its own library can open such a path."""
    refine = Refine(upgraded, device="cpu")
    addresses = [f"bucket/{Path(path).name}" for path in images]
    found = refine({"path": addresses, "bytes": [Path(path).read_bytes() for path in images]})
    assert found == {**refine({"path": images}), "image_id": addresses}


def test_sizes_are_those_of_the_upright_image(upgraded: Path, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.linear_gradient("L").resize((80, 48)).save(tmp_path / "turned.jpg", exif=exif)
    found = Refine(upgraded, device="cpu")({"path": [str(tmp_path / "turned.jpg"), "none.jpg"]})
    assert (found["width"], found["height"]) == ([48, 0], [80, 0])


@pytest.mark.parametrize("size", [(1, 1), (1, 700), (700, 1)], ids=str)
def test_an_image_of_an_odd_shape_is_an_image(size: tuple[int, int], upgraded: Path, tmp_path: Path) -> None:
    Image.new("RGB", size, "red").save(tmp_path / "odd.png")
    found = Refine(upgraded, device="cpu", threshold=0)({"path": [str(tmp_path / "odd.png")]})
    assert (found["width"], found["height"], found["error"]) == ([size[0]], [size[1]], [None])
    assert len(found["boxes"][0]) == 12 * 6


def test_a_detector_that_takes_boxes_is_for_other_commands(
    detector: Detector, images: list[str], tmp_path: Path
) -> None:
    given = Given(detector, describe(detector))
    checkpoint.write(tmp_path / "given.safetensors", given.tensors(), {"kind": "detector", "detector": describe(given)})
    expected = r"given\.safetensors takes its boxes from a results file; run refinebox predict --results FILE --format"
    with pytest.raises(ValueError, match=expected):
        Refine(tmp_path / "given.safetensors")({"path": images})


def test_a_prompt_is_handed_on(upgraded: Path, images: list[str]) -> None:
    with pytest.raises(ValueError, match=r"^tiny knows its categories and takes no prompt; leave it out$"):
        Refine(upgraded, prompt="cat. dog.")({"path": images})


def test_a_device_that_is_not_here_is_said(upgraded: Path, images: list[str]) -> None:
    with pytest.raises(ValueError, match=r"^no device 'cuda:99' here \(.*\); pass --device cpu$"):
        Refine(upgraded, device="cuda:99")({"path": images})


def test_it_is_sent_without_the_detector(upgraded: Path, images: list[str]) -> None:
    refine = Refine(upgraded, device="cpu")
    wanted = refine({"path": images})
    sent = pickle.dumps(refine)
    assert len(sent) < 1000
    assert pickle.loads(sent)({"path": images}) == wanted


def test_torch_is_not_imported_before_the_first_batch() -> None:
    code = "import sys; from refinebox.batch import Refine; Refine('x'); print('torch' in sys.modules)"
    completed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert completed.stdout == "False\n"


def test_a_batch_must_have_images(upgraded: Path) -> None:
    with pytest.raises(ValueError, match=r"^the batch has the columns image, label; expected path or bytes$"):
        Refine(upgraded)({"image": [], "label": []})
