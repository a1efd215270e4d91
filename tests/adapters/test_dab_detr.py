"""What only DAB-DETR has: settings that the tensors cannot tell, patterns and an encoder with PReLU."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from refinebox.data.input_format import pad
from refinebox.detection.zoo import load_detector


@pytest.fixture(scope="module")
def recorded(recording: Callable[[str], Any]) -> Any:
    return recording("dab_detr")


@pytest.mark.parametrize(
    ("name", "settings", "strides"),
    [
        ("dab-detr-r50", {}, (4, 8, 16, 32)),
        ("dab-detr-r50-dc5", {"dilation": True, "temperature": 10.0}, (4, 8, 16, 16)),
        ("dab-detr-r50-dc5-3pat", {"dilation": True}, (4, 8, 16, 16)),
        ("dab-detr-r50-dc5-fixxy", {"dilation": True}, (4, 8, 16, 16)),
    ],
)
def test_temperature_and_dilation_come_from_the_name(
    name: str, settings: dict[str, Any], strides: tuple[int, ...], recorded: Any, tmp_path: Path
) -> None:
    torch.save(recorded.state, tmp_path / "weights.pth")
    detector = load_detector(name, tmp_path / "weights.pth")
    assert detector.strides == strides
    assert detector.profile.settings == settings
    assert detector.get_submodule("network").temperature == settings.get("temperature", 20.0)


def test_the_temperature_changes_the_numbers(recorded: Any, tmp_path: Path) -> None:
    """Otherwise the setting of the name would not reach the position embedding."""
    torch.save(recorded.state, tmp_path / "weights.pth")
    images, sizes = pad([recorded.content["images"][0][:, :96, :128]])
    ten, twenty = (
        load_detector(name, tmp_path / "weights.pth")(images, sizes).logits
        for name in ("dab-detr-r50-dc5", "dab-detr-r50-dc5-3pat")
    )
    assert (ten - twenty).abs().max() > 1


def test_patterns_multiply_the_queries(recorded: Any, tmp_path: Path) -> None:
    """Pattern 0 is zero here, which is what queries without patterns start from."""
    torch.manual_seed(0)
    patterns = torch.cat([torch.zeros(1, 256), torch.randn(2, 256)])
    torch.save({**recorded.state, "transformer.patterns.weight": patterns}, tmp_path / "weights.pth")
    detector = load_detector("dab-detr-r50-3pat", tmp_path / "weights.pth")
    queries = len(recorded.state["refpoint_embed.weight"])
    output = detector(torch.zeros(1, 3, 64, 64), torch.tensor([[64, 64]]))
    assert output.boxes.shape == (1, 3 * queries, 4)
    content, anchors = detector.get_submodule("network").queries(2)
    assert torch.equal(content[1].view(3, queries, 256), patterns[:, None].expand(-1, queries, -1))
    assert torch.equal(anchors[1].view(3, queries, 4)[2], recorded.state["refpoint_embed.weight"].sigmoid())
    scores = detector.scores(output.logits)
    assert len(detector.postprocess(scores, output.boxes, torch.tensor([[64, 64]]))[0].scores) == 300
