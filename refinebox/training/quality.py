"""Train the quality head: after the boxes, on what the finished refiner makes of training images."""

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional as F

from refinebox import distributed
from refinebox.boxes import paired_iou
from refinebox.data.annotations import CocoData
from refinebox.data.batches import Batch
from refinebox.detection.detector import Detector
from refinebox.evaluation.detect import evaluation_batches
from refinebox.evaluation.link import Link
from refinebox.refinement.matching import match
from refinebox.refinement.move import clipped
from refinebox.refinement.quality import PAIR, Quality, gather_evidence, measured
from refinebox.refinement.refined_detector import looked
from refinebox.refinement.refiner import Refiner

IMAGES = 2000  # at most, because a thousand boxes a step learn all there is sooner
LEAST_SCORE = 0.003  # of a box and category to learn from
STEPS, PAIRS = 600, 1024  # of the optimizer, and in each
RATE, DECAY = 2e-3, 1e-2


@dataclass(frozen=True)
class Examples:
    """P pairs of a refined box and a category, and how good each is.

    Attributes:
        boxes, pairs: ``[P, 70 + steps]`` and ``[P, 4]`` evidence.
        columns: ``[P]`` int64.
        wanted: ``[P]`` the IoU with the object that the detector's own assignment gives to this box in this category,
            and 0 for all others: duplicates, however well they are placed, must not rise.
    """

    boxes: Tensor
    pairs: Tensor
    columns: Tensor
    wanted: Tensor


def train_quality(
    detector: Detector, refiner: Refiner, training: CocoData, link: Link, seed: int, batch_size: int, workers: int
) -> Quality:
    """A new head for ``refiner``, which stays as it is; one more pass of the detector over the training images."""
    images = training.images
    if len(images) > IMAGES:
        images = random.Random(f"quality {seed}").sample(images, IMAGES)
    kept = {entry["id"] for entry in images}
    annotations = [entry for entry in training.annotations if entry["image_id"] in kept]
    few = replace(training, images=images, annotations=annotations)
    loader = evaluation_batches(
        detector, few, link, batch_size=batch_size, workers=workers, description="quality", strict=False
    )
    device = next(detector.parameters()).device
    found = [examples(detector, refiner, batch.to(device)) for batch in loader if batch.image_ids]
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        head = Quality(refiner.steps, len(detector.category_ids)).to(device)
        learn(head, joined(distributed.gathered(found), refiner.steps), seed)
    return head


@torch.no_grad()
def examples(detector: Detector, refiner: Refiner, batch: Batch, top: int = 100) -> Examples:
    """All pairs of a batch with a score that matters, on the CPU."""
    output = detector(batch.images, batch.sizes, batch.proposals)
    scores = detector.scores(output.logits)
    matches = match(scores, output.boxes, batch.targets, detector.profile.classification)
    best = scores.amax(-1).topk(min(top, scores.shape[1])).indices  # [B, N]
    boxes = output.boxes.gather(1, best[..., None].expand(-1, -1, 4))
    stages, seen = looked(refiner, refiner.reads(output), boxes, batch.sizes)
    final = output.boxes.scatter(1, best[..., None].expand(-1, -1, 4), clipped(stages[-1]))  # [B, Q, 4]
    wanted = torch.zeros_like(scores)  # [B, Q, K]
    overlap = paired_iou(final[matches.image, matches.query], matches.boxes)
    wanted[matches.image, matches.query, matches.columns] = overlap
    columns = best[..., None].expand(-1, -1, scores.shape[-1])  # [B, N, K]
    scores, wanted = scores.gather(1, columns), wanted.gather(1, columns)
    evidence = gather_evidence(scores, stages, seen, batch.sizes)
    image, box, column = (scores > LEAST_SCORE).nonzero(as_tuple=True)
    found = evidence.boxes[image, box], evidence.pairs[image, box, column], column, wanted[image, box, column]
    return Examples(*(tensor.cpu() for tensor in found))


def joined(parts: Sequence[Examples], steps: int) -> Examples:
    """The examples of all batches."""
    none = Examples(torch.empty(0, measured(steps)), torch.empty(0, PAIR), torch.empty(0).long(), torch.empty(0))
    names = ("boxes", "pairs", "columns", "wanted")
    return Examples(*(torch.cat([getattr(part, name) for part in (none, *parts)]) for name in names))


def learn(head: Quality, known: Examples, seed: int) -> None:
    """Fits ``head`` to the examples by binary cross-entropy; with none, it is left as it is."""
    if not len(known.wanted):
        return
    device = head.strength.device
    for name, values in (("box", known.boxes), ("pair", known.pairs)):
        getattr(head, f"{name}_mean").copy_(values.mean(0))
        getattr(head, f"{name}_deviation").copy_(values.std(0, correction=0).clamp(min=1e-3))
    optimizer = torch.optim.AdamW(head.parameters(), lr=RATE, weight_decay=DECAY)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)
    generator = torch.Generator().manual_seed(seed)
    head.train()
    for _ in range(STEPS):
        chosen = torch.randint(len(known.wanted), (PAIRS,), generator=generator)
        boxes, pairs, columns, wanted = (
            each[chosen].to(device) for each in (known.boxes, known.pairs, known.columns, known.wanted)
        )
        optimizer.zero_grad()
        F.binary_cross_entropy_with_logits(head(boxes, pairs, columns), wanted).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
    head.eval()
    head.requires_grad_(False)
