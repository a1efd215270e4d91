"""The picture of the README, from a tiny model."""

from pathlib import Path
from types import ModuleType

import pytest
import torch
from PIL import Image

from refinebox.data.annotations import CocoData
from refinebox.detection.detector import Detector
from refinebox.detection.output import Detections


class Off:
    """Finds every object; each box lies a tenth of its width too far left before, and on its object after."""

    def __init__(self, data: CocoData) -> None:
        self.data, self.index = data, -1

    def __call__(self, *_: object) -> dict[str, Detections]:
        self.index += 1
        here = [a for a in self.data.annotations if a["image_id"] == self.data.images[self.index]["id"]]
        after = torch.tensor([a["bbox"] for a in here])
        after = torch.cat([after[:, :2], after[:, :2] + after[:, 2:]], 1)
        shift = 0.2 * (after[:, 2:3] - after[:, :1]) * torch.tensor([-1.0, 0, -1, 0])
        labels, scores = torch.tensor([a["category_id"] for a in here]), torch.full((len(here),), 0.9)
        return {"before": Detections(after + shift, scores, labels), "after": Detections(after, scores, labels)}


def test_a_picture_is_written_and_said_what_it_shows(
    script: ModuleType,
    detector: Detector,
    validation: CocoData,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(script, "load", lambda _: detector)
    monkeypatch.setattr(script, "detect_image", Off(validation))
    folder, output = validation.folder.parent, tmp_path / "new" / "picture.jpg"
    script.main(Path("better.safetensors"), folder, output, smallest=4)
    with Image.open(output) as picture:
        assert picture.format == "JPEG"
        assert picture.height > 2 * 640
    said = capsys.readouterr().out
    assert said.startswith(f"wrote {output}, ")
    assert "4 images 100% are nearer now" in said
    assert "loose ones (IoU of 0.5 to 0.75) 100%" in said


def test_the_first_of_equal_values_counts(script: ModuleType) -> None:
    assert script.first(torch.tensor([3, 1, 3, 3, 2, 1])).tolist() == [True, True, False, False, True, False]
