"""What a DAB-DETR learns from beside its own set loss: denoising queries and a dense head on the encoder.

The set loss has auxiliary losses on every decoder layer (DAB-DETR, section 5). Denoising queries are DN-DETR's (arXiv
2203.01305), the dense head is Co-DETR's idea (arXiv 2211.12860); both are gone from the detector that is written.
"""

import math
from dataclasses import dataclass

import torch
from refinebox.adapters.dab_detr import DabDetr
from refinebox.adapters.parts.transformer import MLP
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from torchvision.ops import box_convert, sigmoid_focal_loss

from refinebox.boxes import inverse_sigmoid
from refinebox.data.batches import Batch, Target
from refinebox.refinement.losses import box_losses
from refinebox.refinement.matching import match

GROUPS = 3  # of denoising queries
LABEL_NOISE, BOX_NOISE = 0.2, 0.4
RARE = -math.log(99)  # logit of 1 %, the share of predictions that are objects (focal loss, section 4.1)


class Learner(nn.Module):
    """The network, and beside it what only training needs: the denoiser and the dense head."""

    def __init__(self, network: DabDetr) -> None:
        super().__init__()
        self.network = network
        classes, width = network.class_embed.out_features, network.class_embed.in_features
        self.denoiser = Denoiser(classes, width)
        self.dense_class = nn.Linear(width, classes)
        self.dense_box = MLP(width, width, 4, depth=2)
        nn.init.constant_(self.dense_class.bias, RARE)

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """The losses of one batch, already weighted; their sum is minimised."""
        features, memory = self.network.encode(batch.images, batch.sizes)
        content, anchors = self.network.queries(len(batch.images))
        noisy = self.denoiser.queries(batch.targets)
        count = noisy.boxes.shape[1]
        mask = query_mask(count, content.shape[1], anchors.device)
        layers = self.network.decode(
            memory, torch.cat([noisy.content, content], 1), torch.cat([noisy.boxes, anchors], 1), mask
        )
        outputs = [self.network.heads(*layer) for layer in layers]
        logits = torch.cat([logits for logits, _ in outputs])  # [L * B, N, K]
        boxes = torch.cat([boxes for _, boxes in outputs])  # [L * B, N, 4]
        targets = batch.targets * len(outputs)
        objects = max(1, sum(len(target.boxes) for target in batch.targets))
        matched = set_losses(logits[:, count:], boxes[:, count:], targets, objects)
        denoised = self.denoiser.losses(logits[:, :count], boxes[:, :count], noisy, len(outputs))
        return matched | denoised | self.dense_losses(memory.tokens, cell_centres(features[-1], batch), batch.targets)

    def dense_losses(self, tokens: Tensor, centres: Tensor, targets: list[Target]) -> dict[str, Tensor]:
        """Losses of each encoder token ``[B, L, C]`` predicting the smallest object over its centre ``[B, L, 2]``."""
        logits = self.dense_class(tokens)  # [B, L, K]
        reference = torch.cat([centres, torch.full_like(centres, 0.2)], -1)
        boxes = (self.dense_box(tokens) + inverse_sigmoid(reference)).sigmoid()  # [B, L, 4]
        covered, wanted = smallest_objects(centres, targets)
        labels = torch.zeros_like(logits)
        labels[covered[0], covered[1], wanted.columns] = 1.0
        count = max(1, len(wanted.boxes))
        classes = sigmoid_focal_loss(logits, labels, reduction="sum") / count
        losses = box_losses(boxes[covered], wanted.boxes, count)
        return {"dense_class": classes} | {f"dense_{name}": loss for name, loss in losses.items()}


class Denoiser(nn.Module):
    """Objects disturbed and mislabelled as further queries, which learn to undo it (DN-DETR, section 4)."""

    def __init__(self, classes: int, width: int) -> None:
        super().__init__()
        self.label_enc = nn.Embedding(classes, width)

    def queries(self, targets: list[Target]) -> "NoisyQueries":
        """Every object GROUPS times, moved, resized and sometimes mislabelled."""
        boxes = pad_sequence([target.boxes for target in targets], batch_first=True).repeat(
            1, GROUPS, 1
        )  # [B, G * N, 4]
        columns = pad_sequence([target.columns for target in targets], batch_first=True).repeat(1, GROUPS)  # [B, G * N]
        real = (
            pad_sequence([torch.ones_like(target.columns) for target in targets], batch_first=True)
            .repeat(1, GROUPS)
            .bool()
        )
        random = torch.where(
            torch.rand_like(boxes[..., 0]) < LABEL_NOISE,
            torch.randint_like(columns, self.label_enc.num_embeddings),
            columns,
        )
        noise = (torch.rand_like(boxes) * 2 - 1) * BOX_NOISE
        centres = boxes[..., :2] + noise[..., :2] * boxes[..., 2:] / 2
        moved = torch.cat([centres, boxes[..., 2:] * (1 + noise[..., 2:])], -1).clamp(1e-3, 1 - 1e-3)
        return NoisyQueries(self.label_enc(random), moved, boxes, columns, real)

    def losses(self, logits: Tensor, boxes: Tensor, noisy: "NoisyQueries", layers: int) -> dict[str, Tensor]:
        """Losses of the noisy queries, whose objects are known without matching."""
        real = noisy.real.repeat(layers, 1)
        count = max(1.0, float(noisy.real.sum()))
        wanted = nn.functional.one_hot(noisy.columns, logits.shape[-1]).repeat(layers, 1, 1)[real].float()
        classes = sigmoid_focal_loss(logits[real], wanted, reduction="sum") / count
        losses = box_losses(boxes[real], noisy.wanted.repeat(layers, 1, 1)[real], count)
        return {"denoise_class": classes} | {f"denoise_{name}": loss for name, loss in losses.items()}


@dataclass(frozen=True)
class NoisyQueries:
    """``content`` ``[B, N, C]``; noisy ``boxes``, ``wanted`` ones ``[B, N, 4]``; ``columns``, ``real`` ``[B, N]``."""

    content: Tensor
    boxes: Tensor
    wanted: Tensor
    columns: Tensor
    real: Tensor


def cell_centres(feature: Tensor, batch: Batch) -> Tensor:
    """``[B, L, 2]`` (x, y) of every cell's centre, as fractions of each unpadded image; beyond 1 in the padding."""
    height, width = feature.shape[-2:]
    stride = batch.images.shape[-1] / width
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    pixels = (torch.stack([x, y], -1).reshape(1, -1, 2).to(batch.images) + 0.5) * stride
    return pixels / batch.sizes.flip(1)[:, None]


def smallest_objects(centres: Tensor, targets: list[Target]) -> tuple[tuple[Tensor, Tensor], Target]:
    """(image, cell) indices of the centres that an object covers, and the smallest such object of each."""
    none = targets[0].columns[:0]
    images, cells, boxes, columns = [none], [none], [targets[0].boxes[:0]], [none]
    for image, target in enumerate(targets):
        if not len(target.boxes):  # a crop can leave nothing
            continue
        low, high = box_convert(target.boxes, "cxcywh", "xyxy").split(2, dim=1)  # [N, 2]
        inside = ((centres[image, :, None] > low) & (centres[image, :, None] < high)).all(-1)  # [L, N]
        area = target.boxes[:, 2:].prod(1)
        smallest, index = torch.where(inside, area, torch.inf).min(1)
        cell = smallest.isfinite().nonzero()[:, 0]
        images.append(torch.full_like(cell, image))
        cells.append(cell)
        boxes.append(target.boxes[index[cell]])
        columns.append(target.columns[index[cell]])
    return (torch.cat(images), torch.cat(cells)), Target(torch.cat(boxes), torch.cat(columns))


def query_mask(noisy: int, queries: int, device: torch.device) -> Tensor:
    """``[N, N]`` True where a query may look: noisy ones at their own group and at all queries, queries at queries."""
    group = torch.arange(noisy, device=device) // max(1, noisy // GROUPS)
    mask = torch.zeros(noisy + queries, noisy + queries, dtype=torch.bool, device=device)
    mask[:, noisy:] = True
    mask[:noisy, :noisy] = group[:, None] == group
    return mask


def set_losses(logits: Tensor, boxes: Tensor, targets: list[Target], count: float) -> dict[str, Tensor]:
    """Focal, L1 and GIoU losses after matching each layer's predictions to the objects on its own."""
    with torch.no_grad():
        matches = match(logits.sigmoid(), boxes, targets, "sigmoid")
    labels = torch.zeros_like(logits)
    labels[matches.image, matches.query, matches.columns] = 1.0
    classes = sigmoid_focal_loss(logits, labels, reduction="sum") / count
    return {"class": classes} | box_losses(boxes[matches.image, matches.query], matches.boxes, count)
