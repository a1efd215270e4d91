"""Soft-NMS by hand, and against the plain definition on random boxes."""

import torch
from refinebox.adapters.parts.soft_nms import soft_nms
from torch import Tensor
from torchvision.ops import box_iou


def plain(boxes: Tensor, scores: Tensor, labels: Tensor) -> list[tuple[int, float]]:
    """One box after the other, each label on its own."""
    left, found = scores.tolist(), []
    pending = set(range(len(boxes)))
    while pending:
        best = max(pending, key=lambda index: left[index])
        pending.remove(best)
        found.append((best, left[best]))
        for index in list(pending):
            iou = float(box_iou(boxes[best : best + 1], boxes[index : index + 1]))
            if labels[index] == labels[best] and iou >= 0.5:
                left[index] *= 1 - iou
            if left[index] < 0.05:
                pending.remove(index)
    return sorted(found, key=lambda pair: -pair[1])


def test_it_equals_the_definition() -> None:
    generator = torch.Generator().manual_seed(0)
    boxes = torch.rand(60, 4, generator=generator) * 20
    boxes[:, 2:] += boxes[:, :2] + 10
    scores = torch.rand(60, generator=generator)
    labels = torch.randint(0, 3, (60,), generator=generator)
    index, left = soft_nms(boxes, scores, labels, overlap=0.5, least=0.05)
    wanted = plain(boxes, scores, labels)
    assert index.tolist() == [one for one, _ in wanted]
    torch.testing.assert_close(left, torch.tensor([score for _, score in wanted]), atol=1e-5, rtol=0)
    assert 0 < len(index) < 60


def test_a_covered_box_loses_score_once_for_each_better_one() -> None:
    box = torch.tensor([0.0, 0.0, 10.0, 10.0])
    boxes = torch.stack([box, box + torch.tensor([0.0, 0.0, 0.0, 1.0]), box, box + 100])
    scores, labels = torch.tensor([0.9, 0.8, 0.7, 0.6]), torch.tensor([0, 0, 1, 0])
    index, left = soft_nms(boxes, scores, labels, overlap=0.8, least=0.1)
    assert index.tolist() == [0, 2, 3]  # the second falls to 0.8 * (1 - 10 / 11)
    torch.testing.assert_close(left, torch.tensor([0.9, 0.7, 0.6]))


def test_nothing_stays_nothing() -> None:
    index, left = soft_nms(torch.zeros(0, 4), torch.zeros(0), torch.zeros(0), overlap=0.8, least=0.1)
    assert (len(index), len(left)) == (0, 0)
