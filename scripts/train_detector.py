"""Train a small DAB-DETR on any COCO-format data: frozen detectors for the demo and for experiments.

    python scripts/train_detector.py --data coco/ --output detector.safetensors --init dab-detr-shapes

Set loss with auxiliary losses on every decoder layer (DAB-DETR, section 5). Two aids make it learn within an hour on a
CPU and are gone from the written file: denoising queries (DN-DETR, arXiv 2203.01305) and a dense head on the encoder
(as in Co-DETR, arXiv 2211.12860). Batch normalisation learns with live statistics, which the file freezes.
"""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import torch
import typer
from refinebox.adapters.backbone import ResNetSizes
from refinebox.adapters.dab_detr import DabDetr, build
from refinebox.adapters.layouts import to_authors
from refinebox.adapters.sizes import Sizes
from refinebox.adapters.transformer import MLP
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from torchvision.ops import box_convert, sigmoid_focal_loss

from refinebox import checkpoint, data, evaluate, resume
from refinebox.boxes import inverse_sigmoid
from refinebox.data import Batch, CocoData, CocoDataset, Target
from refinebox.detector import Detector, Profile
from refinebox.losses import box_losses
from refinebox.matching import match
from refinebox.progress import track
from refinebox.zoo import describe, load_detector

BACKBONE = ResNetSizes(
    bottleneck=True, stem=32, depths=(2, 2, 3, 2), inner=(16, 32, 64, 96), channels=(64, 128, 256, 384)
)
GROUPS = 3  # of denoising queries
LABEL_NOISE, BOX_NOISE = 0.2, 0.4
RARE = -math.log(99)  # logit of 1 %, the share of predictions that are objects (focal loss, section 4.1)


@dataclass(frozen=True)
class Plan:
    """The options that decide the result."""

    short_side: int
    long_side: int
    epochs: int
    batch_size: int
    learning_rate: float
    augmentation: data.Augmentation
    dilation: bool
    seed: int


class Learner(nn.Module):
    """The network, and beside it what only training needs: the label embedding for denoising and the dense head."""

    def __init__(self, network: DabDetr) -> None:
        super().__init__()
        self.network = network
        classes, width = network.class_embed.out_features, network.class_embed.in_features
        self.label_enc = nn.Embedding(classes, width)
        self.dense_class = nn.Linear(width, classes)
        self.dense_box = MLP(width, width, 4, depth=2)
        nn.init.constant_(self.dense_class.bias, RARE)

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """The losses of one batch, already weighted; their sum is minimised."""
        features, memory = self.network.encode(batch.images, batch.sizes)
        content, anchors = self.network.queries(len(batch.images))
        noisy = self.noisy_queries(batch.targets)
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
        denoised = self.denoising_losses(logits[:, :count], boxes[:, :count], noisy, len(outputs))
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

    def noisy_queries(self, targets: list[Target]) -> "NoisyQueries":
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

    def denoising_losses(self, logits: Tensor, boxes: Tensor, noisy: "NoisyQueries", layers: int) -> dict[str, Tensor]:
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


def new_network(classes: int, queries: int, dilation: bool) -> DabDetr:
    """A small DAB-DETR with fresh weights."""
    sizes = Sizes(
        BACKBONE,
        width=128,
        feedforward=256,
        encoder_layers=2,
        decoder_layers=3,
        queries=queries,
        columns=classes,
        patterns=0,
    )
    network = DabDetr(sizes, dilation=dilation, norm=nn.BatchNorm2d)
    for parameter in network.transformer.parameters():
        if parameter.dim() > 1:
            nn.init.xavier_uniform_(parameter)
    nn.init.constant_(network.class_embed.bias, RARE)
    nn.init.zeros_(network.bbox_embed.layers[-1].weight)
    nn.init.zeros_(network.bbox_embed.layers[-1].bias)
    side = math.ceil(queries**0.5)  # anchors start as a grid
    index = torch.arange(queries)
    grid = torch.stack([(index % side + 0.5) / side, (index // side + 0.5) / side], dim=1)
    with torch.no_grad():
        network.refpoint_embed.weight.copy_(inverse_sigmoid(torch.cat([grid, torch.full_like(grid, 0.25)], dim=1)))
    return network


def start_from(network: DabDetr, detector: Detector, category_names: list[str]) -> None:
    """Copies every tensor of the same shape; score columns are copied where the category has the same name."""
    source = detector.tensors()
    own = network.state_dict()
    network.load_state_dict(
        {name: source[name] for name in own if name in source and source[name].shape == own[name].shape}, strict=False
    )
    columns = {detector.category_names.get(category): column for column, category in enumerate(detector.category_ids)}
    network.class_embed.reset_parameters()
    nn.init.constant_(network.class_embed.bias, RARE)
    with torch.no_grad():
        for column, name in enumerate(category_names):
            if name in columns:
                for part in ("weight", "bias"):
                    getattr(network.class_embed, part)[column] = source[f"class_embed.{part}"][columns[name]]


def learning_rate(plan: Plan, step: int, steps: int) -> float:
    """Linear warm-up over the first 2 %, then a cosine to zero."""
    warmup = max(1, steps // 50)
    if step < warmup:
        return plan.learning_rate * (step + 1) / warmup
    return plan.learning_rate * 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))


def frozen(network: DabDetr, name: str, categories: dict[int, str], plan: Plan) -> Detector:
    """The detector as it stands, on the CPU."""
    profile = Profile(
        name=name,
        family="dab_detr",
        category_ids=tuple(categories),
        category_names=categories,
        short_side=plan.short_side,
        long_side=plan.long_side,
        settings={"dilation": plan.dilation},
    )
    state, _ = to_authors({key: value.cpu() for key, value in network.state_dict().items()})
    return build(state, profile)


def write(path: Path, detector: Detector) -> None:
    checkpoint.write(path, detector.tensors(), {"kind": "detector", "detector": describe(detector)})


def train_epoch(
    learner: Learner,
    optimizer: torch.optim.Optimizer,
    dataset: CocoDataset,
    plan: Plan,
    epoch: int,
    device: torch.device,
    workers: int,
) -> dict[str, float]:
    """One pass over the data; the mean of each loss."""
    learner.train()
    dataset.epoch = epoch
    torch.manual_seed(plan.seed + epoch)
    order = data.shuffled(len(dataset), plan.seed, epoch)
    loader = data.loaded(dataset, data.cut(order, plan.batch_size), workers)
    totals: dict[str, Tensor] = {}
    for index, batch in enumerate(track(loader, f"epoch {epoch + 1}/{plan.epochs}", len(loader))):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(plan, epoch * len(loader) + index, plan.epochs * len(loader))
        losses = learner(batch.to(device))
        optimizer.zero_grad(set_to_none=True)
        torch.stack(list(losses.values())).sum().backward()
        nn.utils.clip_grad_norm_(learner.parameters(), 1.0)
        optimizer.step()
        for name, loss in losses.items():
            totals[name] = totals.get(name, torch.zeros(())).to(device) + loss.detach()
    return {name: float(total) / len(loader) for name, total in totals.items()}


def validate(
    detector: Detector, validation: CocoData, batch_size: int, workers: int, device: torch.device
) -> evaluate.Metrics:
    link = evaluate.Link.between(detector, validation)
    rows = evaluate.detect(
        detector.to(device), validation, link, batch_size=batch_size, workers=workers, description="validate"
    )
    return evaluate.coco_ap(validation, rows["before"])


def main(
    data_folder: Annotated[Path, typer.Option("--data", help="Folder in COCO's layout, with a train and a val split.")],
    output: Annotated[Path, typer.Option(help="The detector file to write; its training state stands beside it.")],
    init: Annotated[
        str | None, typer.Option(help="Start from this detector: a name or a file. Categories may differ.")
    ] = None,
    short_side: Annotated[int, typer.Option(help="Input size, in pixels.")] = 160,
    long_side: Annotated[int, typer.Option(help="Largest long side, in pixels.")] = 266,
    epochs: int = 50,
    batch_size: int = 16,
    learning_rate: float = 4e-4,
    queries: Annotated[int, typer.Option(help="Boxes predicted in each image.")] = 64,
    augmentation: Annotated[Literal["multiscale", "flip", "none"], typer.Option()] = "multiscale",
    dilation: Annotated[bool, typer.Option("--dilation", help="Stride 16 in the last stage (DC5).")] = False,
    validate_every: Annotated[int, typer.Option(help="Epochs between two validations.")] = 1,
    resume_training: Annotated[bool, typer.Option("--resume", help="Continue an interrupted run.")] = False,
    seed: int = 0,
    workers: int = 0,
    device: str = "cuda" if torch.cuda.is_available() else "cpu",
) -> None:
    """Train a small DAB-DETR on COCO-format data and write it as a frozen detector."""
    plan = Plan(short_side, long_side, epochs, batch_size, learning_rate, augmentation, dilation, seed)
    torch.manual_seed(seed)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    training, validation = (data.read(*data.find(data_folder, split)) for split in ("train", "val"))
    print(f"train: {training.summary()}\nval: {validation.summary()}")
    columns = {category_id: column for column, category_id in enumerate(training.categories)}
    dataset = CocoDataset(
        training,
        columns,
        short_side=short_side,
        long_side=long_side,
        augmentation=augmentation,
        seed=seed,
        keep_empty=False,
    )
    network = new_network(len(columns), queries, dilation)
    if init is not None:
        start_from(network, load_detector(init), list(training.categories.values()))
    learner = Learner(network).to(device, memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(learner.parameters(), lr=learning_rate, weight_decay=1e-4, fused=True)
    state = output.with_suffix(".training.safetensors")
    first = int(resume.load(state, learner, optimizer)["epoch"]) if resume_training else 0
    for epoch in range(first, epochs):
        losses = train_epoch(learner, optimizer, dataset, plan, epoch, torch.device(device), workers)
        report = {name: round(loss, 4) for name, loss in losses.items()}
        detector = frozen(network, output.stem, training.categories, plan)
        if (epoch + 1) % validate_every == 0 or epoch + 1 == epochs:
            metrics = validate(detector, validation, batch_size, workers, torch.device(device))
            report |= {name: round(value, 2) for name, value in metrics.items() if value is not None}
        print(f"epoch {epoch + 1}/{epochs} {report}", flush=True)
        write(output, detector.cpu())
        resume.save(state, learner, optimizer, {"epoch": epoch + 1})


if __name__ == "__main__":
    typer.run(main)
