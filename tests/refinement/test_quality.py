"""What is known of refined boxes, and how scores follow their quality."""

import pytest
import torch

from refinebox.refinement.quality import Evidence, Quality, gather_evidence, measured

SIZES = torch.tensor([[100, 200]])


def evidence(scores: list[list[float]]) -> Evidence:
    """Two boxes that overlap by a half, and one elsewhere; the first was moved by a tenth of its side at first."""
    final = torch.tensor([[[0.2, 0.5, 0.2, 0.4], [0.2, 0.4, 0.2, 0.2], [0.8, 0.5, 0.1, 0.1]]])
    first = final.clone()
    first[0, 0, 0] += 0.02
    return gather_evidence(torch.tensor([scores]), [first, final, final], torch.zeros(1, 3, 64), SIZES)


def test_the_boxes_are_measured() -> None:
    boxes = evidence([[0.9, 0.1], [0.5, 0.2], [0.3, 0.3]]).boxes
    assert boxes.shape == (1, 3, measured(2))
    size, place, moved, crowding = boxes[0, :, 64:].split((2, 2, 3, 1), dim=1)
    torch.testing.assert_close(size.exp(), torch.tensor([[40.0, 40.0], [40.0, 20.0], [20.0, 10.0]]))
    torch.testing.assert_close(place, torch.tensor([[0.2, 0.5], [0.2, 0.4], [0.8, 0.5]]))
    # IoU before with the end, after the first step with the end, before with after the first step
    torch.testing.assert_close(moved, torch.tensor([[9 / 11, 1.0, 9 / 11], [1.0, 1.0, 1.0], [1.0, 1.0, 1.0]]))
    assert crowding[:, 0].tolist() == [0, 0, 0]  # an IoU of a half is not more than a half


def test_pairs_know_who_competes() -> None:
    pairs = evidence([[0.9, 0.1], [0.5, 0.2], [0.3, 0.3]]).pairs[0]  # [N, K, 4]
    torch.testing.assert_close(pairs[..., 0].sigmoid(), torch.tensor([[0.9, 0.1], [0.5, 0.2], [0.3, 0.3]]))
    torch.testing.assert_close(pairs[..., 1].sigmoid(), torch.tensor([[0.1, 0.9], [0.2, 0.5], [0.3, 0.3]]))
    overlap = 0.5
    torch.testing.assert_close(pairs[..., 2], torch.tensor([[0, overlap], [overlap, 0], [0, 0]]))
    torch.testing.assert_close(pairs[..., 3], overlap * torch.tensor([[0.5, 0.2], [0.9, 0.1], [0, 0]]))


def test_one_category_has_no_other() -> None:
    assert not evidence([[0.9], [0.5], [0.3]]).pairs[..., 1].any()


@pytest.mark.parametrize("strength", [0.0, 0.4, 1.0])
def test_scores_follow_the_quality_as_far_as_told(strength: float) -> None:
    torch.manual_seed(0)
    head = Quality(2, 2).eval()
    head.strength.fill_(strength)
    scores = torch.tensor([[[0.9, 0.1], [0.5, 0.2], [0.3, 0.3]]])
    known = evidence(scores[0].tolist())
    quality = head(known.boxes[:, :, None], known.pairs, torch.arange(2)).sigmoid()
    found = head.rescored(scores, known)
    torch.testing.assert_close(found, scores ** (1 - strength) * quality**strength)
    assert ((found >= 0) & (found <= 1)).all()
