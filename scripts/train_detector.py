"""Train a small detector on any COCO-format data: frozen detectors for the demo and for experiments.

    python scripts/train_detector.py --data coco/ --output detector.safetensors --init dab-detr-shapes

What it learns from is in ``learner.py``, ``dino_learner.py`` and ``library_learner.py``. Batch normalisation learns
with live statistics, which the file freezes.
"""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import torch
import typer
from dino_learner import DinoLearner, new_dino
from learner import RARE, Learner
from library_learner import RtDetrLearner, SsdliteLearner
from refinebox.adapters.dab_detr import DabDetr, build
from refinebox.adapters.dino import build as build_dino
from refinebox.adapters.layouts.recognise import to_authors
from refinebox.adapters.parts.backbone import ResNetSizes
from refinebox.adapters.parts.sizes import Sizes
from torch import Tensor, nn

from refinebox.boxes import inverse_sigmoid
from refinebox.data import annotations, batches, layout
from refinebox.data.annotations import CocoData
from refinebox.data.dataset import Augmentation, CocoDataset
from refinebox.data.input_format import InputFormat
from refinebox.detection.detector import Detector
from refinebox.detection.profile import Profile
from refinebox.detection.zoo import describe, load_detector
from refinebox.evaluation import detect
from refinebox.evaluation.evaluator import Metrics, coco_ap
from refinebox.evaluation.link import Link
from refinebox.files import checkpoint
from refinebox.progress import track
from refinebox.training import resume

BACKBONE = ResNetSizes(
    bottleneck=True, stem=32, depths=(2, 2, 3, 2), inner=(16, 32, 64, 96), channels=(64, 128, 256, 384)
)


Architecture = Literal["dab-detr", "dino", "rt-detr", "ssdlite"]
AnyLearner = Learner | DinoLearner | RtDetrLearner | SsdliteLearner


@dataclass(frozen=True)
class Plan:
    """The options that decide the result."""

    architecture: Architecture
    queries: int
    short_side: int
    long_side: int
    epochs: int
    batch_size: int
    learning_rate: float
    augmentation: Augmentation
    dilation: bool
    seed: int


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


def new_learner(categories: dict[int, str], plan: Plan) -> AnyLearner:
    """What is trained, with fresh weights."""
    match plan.architecture:
        case "dab-detr":
            return Learner(new_network(len(categories), plan.queries, plan.dilation))
        case "dino":
            return DinoLearner(new_dino(len(categories), plan.queries, BACKBONE))
        case "rt-detr":
            return RtDetrLearner(categories, plan.queries, plan.short_side, plan.long_side)
        case "ssdlite":
            return SsdliteLearner(categories)


def start_from(network: nn.Module, detector: Detector, category_names: list[str]) -> None:
    """Copies every tensor of the same name and shape: a DINO gets a DAB-DETR's backbone.

    A DAB-DETR's score columns are copied where the category has the same name.
    """
    source = detector.tensors()
    own = network.state_dict()
    network.load_state_dict(
        {name: source[name] for name in own if name in source and source[name].shape == own[name].shape}, strict=False
    )
    if not isinstance(network, DabDetr):
        return
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


def frozen(learner: AnyLearner, name: str, categories: dict[int, str], plan: Plan) -> Detector:
    """The detector as it stands, on the CPU."""
    if isinstance(learner, RtDetrLearner | SsdliteLearner):
        return learner.frozen(name)
    network = learner.network
    dab = isinstance(network, DabDetr)
    profile = Profile(
        name=name,
        family="dab_detr" if dab else "dino",
        category_ids=tuple(categories),
        category_names=categories,
        input=InputFormat(short_side=plan.short_side, long_side=plan.long_side),
        settings={"dilation": plan.dilation} if dab else {},
    )
    state, _ = to_authors({key: value.cpu() for key, value in network.state_dict().items()})
    return build(state, profile) if dab else build_dino(state, profile)


def write(path: Path, detector: Detector) -> None:
    checkpoint.write(path, detector.tensors(), {"kind": "detector", "detector": describe(detector)})


def train_epoch(
    learner: AnyLearner,
    optimizer: torch.optim.Optimizer,
    dataset: CocoDataset,
    plan: Plan,
    epoch: int,
    device: torch.device,
    workers: int,
) -> dict[str, float]:
    """One pass over the data; the mean of each loss."""
    learner.train()
    dataset.variant = epoch
    torch.manual_seed(plan.seed + epoch)
    order = batches.shuffled(len(dataset), plan.seed, epoch)
    loader = batches.loaded(dataset, batches.cut(order, plan.batch_size), workers, device)
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


def validate(detector: Detector, validation: CocoData, batch_size: int, workers: int, device: torch.device) -> Metrics:
    link = Link.between(detector, validation)
    rows = detect.detect(
        detector.to(device), validation, link, batch_size=batch_size, workers=workers, description="validate"
    )
    return coco_ap(validation, rows["before"])


def main(
    data_folder: Annotated[Path, typer.Option("--data", help="Folder in COCO's layout, with a train and a val split.")],
    output: Annotated[Path, typer.Option(help="The detector file to write; its training state stands beside it.")],
    architecture: Annotated[Architecture, typer.Option(help="What is trained.")] = "dab-detr",
    init: Annotated[
        str | None, typer.Option(help="Start from this detector: a name or a file. What fits is copied.")
    ] = None,
    short_side: Annotated[int, typer.Option(help="Input size, in pixels; of an RT-DETR the height.")] = 160,
    long_side: Annotated[int, typer.Option(help="Largest long side, in pixels; of an RT-DETR the width.")] = 266,
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
    """Train a small detector on COCO-format data and write it as a frozen one."""
    plan = Plan(
        architecture,
        queries,
        short_side,
        long_side,
        epochs,
        batch_size,
        learning_rate,
        augmentation,
        dilation,
        seed,
    )
    if dilation and architecture != "dab-detr":
        raise typer.BadParameter("--dilation is for DAB-DETR; leave it out")
    torch.manual_seed(seed)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    training, validation = (annotations.read(*layout.find(data_folder, split)) for split in ("train", "val"))
    print(f"train: {training.summary()}\nval: {validation.summary()}")
    learner = new_learner(training.categories, plan)
    if init is not None:
        start_from(learner.network, load_detector(init), list(training.categories.values()))
    dataset = CocoDataset(
        training,
        {category_id: column for column, category_id in enumerate(training.categories)},
        form=getattr(learner, "form", InputFormat(short_side=short_side, long_side=long_side)),
        augmentation=augmentation,
        seed=seed,
        keep_empty=False,
    )
    learner = learner.to(device, memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(learner.parameters(), lr=learning_rate, weight_decay=1e-4, fused=True)
    state = output.with_suffix(".training.safetensors")
    first = int(resume.load(state, {"model": learner}, optimizer)["epoch"]) if resume_training else 0
    for epoch in range(first, epochs):
        losses = train_epoch(learner, optimizer, dataset, plan, epoch, torch.device(device), workers)
        report = {name: round(loss, 4) for name, loss in losses.items()}
        detector = frozen(learner, output.stem, training.categories, plan)
        if (epoch + 1) % validate_every == 0 or epoch + 1 == epochs:
            metrics = validate(detector, validation, batch_size, workers, torch.device(device))
            report |= {name: round(value, 2) for name, value in metrics.items() if value is not None}
        print(f"epoch {epoch + 1}/{epochs} {report}", flush=True)
        write(output, detector.cpu())
        resume.save(state, {"model": learner}, optimizer, {"epoch": epoch + 1})


if __name__ == "__main__":
    typer.run(main)
