"""Train the refiner on a frozen detector: one readable loop that can be interrupted and continued."""

import math
import time
import zlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from refinebox import data, distributed, evaluate, resume
from refinebox.categories import Matching
from refinebox.data import Augmentation, Batch, CocoData, CocoDataset
from refinebox.detector import Detector
from refinebox.evaluate import Link, Metrics
from refinebox.interruption import Interrupted, Interruption
from refinebox.losses import loss_names, refinement_losses
from refinebox.matching import Matches, match
from refinebox.progress import track
from refinebox.refiner import RefinedDetector, Refiner
from refinebox.run import configuration, forget_after, open_run, points, record, write_refiner

Schedule = Literal["step", "cosine"]


@dataclass(frozen=True)
class Settings:
    """Everything that decides the result of a training. The defaults are the published recipe.

    Attributes:
        epochs: passes over the training images.
        batch_size: images in a step.
        learning_rate, weight_decay: of AdamW; normalisation layers do not decay.
        schedule: of the learning rate. ``step`` falls to a tenth after 11/12 of all steps, as published; ``cosine``
            warms up over the first twentieth and falls to zero, which is better where steps are few.
        clip_norm: largest L2 norm of the gradient.
        jitter: copies of every object's box, moved and resized by up to 15 % of its sides, that are refined beside the
            matched boxes; 0 in the paper, more where training images are few.
        steps: how often the refiner moves each box.
        accumulate: parts that a batch is cut into when memory is short; the gradient is that of the whole batch.
        augmentation: ``multiscale`` (DETR's flip, resize and crop), ``flip`` or ``none``.
        seed: of the initial weights, the order and the augmentation.
    """

    epochs: int = 12
    batch_size: int = 16
    learning_rate: float = 1e-4
    weight_decay: float = 1e-4
    schedule: Schedule = "step"
    clip_norm: float = 0.1
    jitter: int = 0
    steps: int = 3
    accumulate: int = 1
    augmentation: Augmentation = "multiscale"
    seed: int = 0

    def rate(self, step: int, steps: int) -> float:
        """The learning rate of ``step``, counted from 0, out of ``steps``."""
        if self.schedule == "step":
            return self.learning_rate * (0.1 if 12 * step >= 11 * steps else 1.0)
        warmup = min(1.0, 20 * (step + 1) / steps)
        return self.learning_rate * warmup * 0.5 * (1 + math.cos(math.pi * step / steps))


@dataclass(frozen=True)
class Report:
    """How a training ended.

    Attributes:
        best: the file with the refiner of the best epoch.
        before, after: AP and its kin on the validation images in points, without and with that refiner.
        seconds: wall time, of all sittings together.
    """

    best: Path
    before: Metrics
    after: Metrics
    seconds: float

    @property
    def gain(self) -> float:
        """AP after less AP before, in points."""
        return points(self.after) - points(self.before)

    def verdict(self) -> str:
        """The result in a sentence; a loss is called a loss."""
        before, after = points(self.before), points(self.after)
        change = f"validation AP {before:.1f} → {after:.1f} ({self.gain:+.1f}) in {self.seconds:.0f} s"
        if self.gain >= 0:
            return f"{change}; the refiner is in {self.best}"
        return (
            f"{change}: the refiner makes these boxes WORSE and should not be applied; train longer or on more images, "
            "or look at refinebox oracle-analysis: perhaps boxes are not what limits this detector"
        )


def train(
    detector: Detector,
    training: CocoData,
    validation: CocoData,
    output: Path,
    settings: Settings,
    *,
    categories: Matching = "check",
    workers: int = 0,
    continued: bool = False,
) -> Report:
    """Trains a refiner and writes ``best.safetensors``, ``last/``, ``metrics.jsonl`` and ``config.json`` to ``output``.

    On the CPU, a run that was interrupted and continued ends bit for bit as one that was not. Processes that torchrun
    started share every batch; the first of them writes.

    Raises:
        ValueError: categories differ, settings changed since the interruption, or no training image has an object.
        FileExistsError, NotADirectoryError: ``output`` holds another run, or is a file.
        FloatingPointError: the loss is no longer finite; the message names the images.
        ConnectionError: another process has ended.
        Interrupted: SIGTERM or SIGINT came; everything is saved.
    """
    links = [Link.between(detector, split, categories) for split in (training, validation)]
    dataset = training_dataset(detector, training, links[0], settings)
    if not len(dataset):
        raise ValueError(f"none of the {len(training.images)} training images has an object; check the annotations")
    torch.manual_seed(settings.seed)
    device = next(detector.parameters()).device
    refiner = Refiner(detector.channels, detector.strides, settings.steps).to(device)
    model = RefinedDetector(detector, refiner)
    optimizer = build_optimizer(refiner, settings)
    first = distributed.rank() == 0
    if first:
        open_run(output, configuration(detector, training, asdict(settings)), continued)
    state = output / "last" / "state.safetensors"
    progress: dict[str, Any] = {"epoch": 0, "step": 0, "losses": {}, "seconds": 0.0, "best": None}
    if continued and state.exists():
        progress = resume.load(state, refiner, optimizer)
    if first:
        forget_after(output / "metrics.jsonl", progress["epoch"])
    start = time.monotonic() - progress["seconds"]
    with Interruption() as interruption:
        for epoch in range(progress["epoch"], settings.epochs):
            train_epoch(detector, refiner, optimizer, dataset, settings, progress, interruption, workers)
            if interruption.signal:
                progress["seconds"] = round(time.monotonic() - start, 1)
                raise interrupted(output, state if first else None, refiner, optimizer, progress, interruption)
            metrics = evaluate.evaluate(model, validation, links[1], batch_size=part_size(settings), workers=workers)
            losses = {name: loss / len(steps_of(dataset, settings)) for name, loss in progress["losses"].items()}
            progress |= {"epoch": epoch + 1, "step": 0, "losses": {}, "seconds": round(time.monotonic() - start, 1)}
            better = progress["best"] is None or points(metrics["after"]) > points(progress["best"]["after"])
            if better:
                progress["best"] = {"epoch": epoch + 1, **metrics}
            if first:
                line = {"epoch": epoch + 1, **losses, **metrics, "seconds": progress["seconds"]}
                record(output, line, settings.epochs)
                if better:
                    learned = {**progress["best"], "categories": links[0].categories(training)}
                    write_refiner(output / "best.safetensors", refiner, detector, asdict(settings), learned)
                resume.save(state, refiner, optimizer, progress)
            if epoch + 1 < settings.epochs and agreed(interruption, device):
                raise interrupted(output, None, refiner, optimizer, progress, interruption)
    best = progress["best"]
    return Report(output / "best.safetensors", best["before"], best["after"], progress["seconds"])


def part_size(settings: Settings) -> int:
    """Images that a process sees at once; evaluation must not need more memory than the steps."""
    return -(-settings.batch_size // (settings.accumulate * distributed.processes()))


def steps_of(dataset: CocoDataset, settings: Settings) -> list[Sequence[int]]:
    """The indices of the images of every step of an epoch; the order is a function of seed and epoch alone."""
    return data.cut(data.shuffled(len(dataset), settings.seed, dataset.epoch), settings.batch_size)


def train_epoch(
    detector: Detector,
    refiner: Refiner,
    optimizer: torch.optim.Optimizer,
    dataset: CocoDataset,
    settings: Settings,
    progress: dict[str, Any],
    interruption: Interruption,
    workers: int,
) -> None:
    """What is left of the epoch that ``progress`` names; counts steps and sums losses there, and stops when asked."""
    epoch = dataset.epoch = progress["epoch"]
    steps = steps_of(dataset, settings)
    # every process takes its share of every batch, and in as many parts as memory demands
    parts, rank = distributed.processes() * settings.accumulate, distributed.rank() * settings.accumulate
    shares = [[step[rank + part :: parts] for part in range(settings.accumulate)] for step in steps[progress["step"] :]]
    loader = iter(data.loaded(dataset, [piece for share in shares for piece in share if len(piece)], workers))
    device = next(refiner.parameters()).device
    for share in track(shares, f"epoch {epoch + 1}/{settings.epochs}", len(shares)):
        for group in optimizer.param_groups:
            group["lr"] = settings.rate(epoch * len(steps) + progress["step"], settings.epochs * len(steps))
        batches = [next(loader).to(device) for piece in share if len(piece)]
        losses = train_step(detector, refiner, optimizer, batches, settings, epoch)
        progress["step"] += 1
        for name, loss in losses.items():
            progress["losses"][name] = progress["losses"].get(name, 0.0) + loss
        if agreed(interruption, device):
            return


def agreed(interruption: Interruption, device: torch.device) -> bool:
    """Whether any process was asked to stop; then all stop after the same step."""
    asked = torch.tensor(interruption.signal, device=device)
    interruption.signal = interruption.signal or int(distributed.total(asked))
    return bool(interruption.signal)


def interrupted(
    output: Path,
    state: Path | None,
    refiner: Refiner,
    optimizer: torch.optim.Optimizer,
    progress: dict[str, Any],
    interruption: Interruption,
) -> Interrupted:
    """What to raise after everything is saved to ``state``."""
    if state is not None:
        resume.save(state, refiner, optimizer, progress)
    step, epoch = progress["step"], progress["epoch"]
    place = f"step {step} of epoch {epoch + 1}" if step else f"epoch {epoch}"
    return Interrupted(
        f"stopped after {place}, everything is saved in {output}; repeat the command with --resume to continue",
        interruption.signal,
    )


def train_step(
    detector: Detector,
    refiner: Refiner,
    optimizer: torch.optim.Optimizer,
    batches: Sequence[Batch],
    settings: Settings,
    epoch: int = 0,
) -> dict[str, float]:
    """One step of the optimizer on the parts of a batch that this process has; the total loss and its parts.

    Raises:
        FloatingPointError: the loss is not finite; the refiner is left as it was.
        ConnectionError: another process has ended.
    """
    parameters = list(refiner.parameters())
    count = sum(len(target.boxes) for batch in batches for target in batch.targets)
    objects = max(1, int(distributed.total(torch.tensor(count, device=parameters[0].device))))
    optimizer.zero_grad()
    sums = torch.zeros(2 * settings.steps, device=parameters[0].device)
    names = loss_names(settings.steps)
    for batch in batches:
        try:
            losses = batch_losses(detector, refiner, batch, settings.jitter, objects, f"{settings.seed} {epoch}")
            parts = torch.stack([losses[name] for name in names])
            if not parts.isfinite().all():
                raise FloatingPointError(
                    f"the loss is {parts.sum().item()}; lower the learning rate or check these images"
                )
        except FloatingPointError as error:
            raise FloatingPointError(f"images {', '.join(map(str, batch.image_ids))}: {error}") from error
        parts.sum().backward()  # type: ignore[no-untyped-call]
        sums += parts.detach()
    distributed.total_gradients(parameters)
    nn.utils.clip_grad_norm_(parameters, settings.clip_norm)
    optimizer.step()
    totals = distributed.total(sums).tolist()
    return {"loss": sum(totals)} | dict(zip(names, totals, strict=True))


def batch_losses(
    detector: Detector, refiner: Refiner, batch: Batch, jitter: int = 0, objects: int | None = None, key: str = ""
) -> dict[str, Tensor]:
    """The losses of every step over matched and jittered boxes; queries are matched once, before the first step.

    Args:
        detector, refiner, batch: what is trained on what.
        jitter: copies of every object.
        objects: what the sums are divided by, if the batch is a part of another; its own objects by default.
        key: decides the jitter, together with the images' ids.
    """
    if objects is None:
        objects = max(1, sum(len(target.boxes) for target in batch.targets))
    output = detector(batch.images, batch.sizes)
    matches = match(detector.scores(output.logits), output.boxes, batch.targets, detector.profile.classification)
    copies = jittered(matches.boxes, jitter_noise(batch, matches, jitter, key))
    boxes = torch.cat([output.boxes[matches.image, matches.query], copies.flatten(0, 1)])  # [M * (1 + jitter), 4]
    steps = refiner.refine(output.features, boxes, matches.image.repeat(1 + jitter), batch.sizes)
    return refinement_losses(steps, matches.boxes.repeat(1 + jitter, 1), objects * (1 + jitter))


def jitter_noise(batch: Batch, matches: Matches, copies: int, key: str) -> Tensor:
    """``[copies, M, 4]`` random numbers between -1 and 1 that depend on ``key`` and each match's image alone."""
    counts = matches.image.bincount(minlength=len(batch.image_ids)).tolist()
    noise = [
        torch.rand(copies, count, 4, generator=torch.Generator().manual_seed(zlib.crc32(f"{key} {image_id}".encode())))
        for image_id, count in zip(batch.image_ids, counts, strict=True)
    ]
    return 2 * torch.cat(noise, dim=1).to(matches.boxes) - 1


def jittered(boxes: Tensor, noise: Tensor, amount: float = 0.15) -> Tensor:
    """``[J, N, 4]`` copies of boxes ``[N, 4]`` (cxcywh, fractions).

    Centre and size change by ``noise`` ``[J, N, 4]``, between -1 and 1, times ``amount`` of each side.
    """
    noise = amount * noise
    centres, sizes = boxes[:, :2], boxes[:, 2:]
    return torch.cat([centres + noise[..., :2] * sizes, sizes * (1 + noise[..., 2:])], dim=-1).clamp(0, 1)


def build_optimizer(refiner: Refiner, settings: Settings) -> torch.optim.Optimizer:
    """AdamW, as published: everything decays but the normalisation layers."""
    norms = [
        parameter
        for module in refiner.modules()
        if isinstance(module, nn.GroupNorm | nn.LayerNorm)
        for parameter in module.parameters()
    ]
    kept = {id(parameter) for parameter in norms}
    others = [parameter for parameter in refiner.parameters() if id(parameter) not in kept]
    groups = [{"params": others, "weight_decay": settings.weight_decay}, {"params": norms, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=settings.learning_rate)


def training_dataset(detector: Detector, training: CocoData, link: Link, settings: Settings) -> CocoDataset:
    """The augmented training images, without those that have no object."""
    return CocoDataset(
        training,
        link.columns,
        short_side=detector.profile.short_side,
        long_side=detector.profile.long_side,
        layout=detector.profile.layout,
        augmentation=settings.augmentation,
        seed=settings.seed,
        keep_empty=False,
    )
