"""Train the refiner on a frozen detector: one readable loop that can be interrupted and continued."""

import json
import math
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from refinebox import checkpoint, data, evaluate, resume
from refinebox.categories import Matching
from refinebox.data import Augmentation, Batch, CocoData, CocoDataset
from refinebox.detector import Detector
from refinebox.evaluate import Link, Metrics
from refinebox.losses import refinement_losses
from refinebox.matching import match
from refinebox.progress import track
from refinebox.refiner import RefinedDetector, Refiner

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

    On the CPU, a run that was interrupted and continued ends bit for bit as one that was not.

    Raises:
        ValueError: categories differ, settings changed since the interruption, or no training image has an object.
        FileExistsError, NotADirectoryError: ``output`` holds another run, or is a file.
        FloatingPointError: the loss is no longer finite; the message names the images.
    """
    links = [Link.between(detector, split, categories) for split in (training, validation)]
    dataset = training_dataset(detector, training, links[0], settings)
    if not len(dataset):
        raise ValueError(f"none of the {len(training.images)} training images has an object; check the annotations")
    torch.manual_seed(settings.seed)
    refiner = Refiner(detector.channels, detector.strides, settings.steps).to(next(detector.parameters()).device)
    model = RefinedDetector(detector, refiner)
    optimizer = build_optimizer(refiner, settings)
    open_run(output, configuration(detector, training, settings), continued)
    state = output / "last" / "state.safetensors"
    progress: dict[str, Any] = {"epoch": 0, "seconds": 0.0, "best": None}
    if continued and state.exists():
        progress = resume.load(state, refiner, optimizer)
    forget_after(output / "metrics.jsonl", progress["epoch"])
    start = time.monotonic() - progress["seconds"]
    for epoch in range(progress["epoch"], settings.epochs):
        losses = train_epoch(detector, refiner, optimizer, dataset, settings, epoch, workers)
        metrics = evaluate.evaluate(model, validation, links[1], batch_size=settings.batch_size, workers=workers)
        seconds = round(time.monotonic() - start, 1)
        record(output, {"epoch": epoch + 1, **losses, **metrics, "seconds": seconds}, settings.epochs)
        if progress["best"] is None or points(metrics["after"]) > points(progress["best"]["after"]):
            progress["best"] = {"epoch": epoch + 1, **metrics}
            learned = {**progress["best"], "categories": links[0].categories(training)}
            write_refiner(output / "best.safetensors", refiner, detector, settings, learned)
        progress |= {"epoch": epoch + 1, "seconds": seconds}
        resume.save(state, refiner, optimizer, progress)
    best = progress["best"]
    return Report(output / "best.safetensors", best["before"], best["after"], progress["seconds"])


def train_epoch(
    detector: Detector,
    refiner: Refiner,
    optimizer: torch.optim.Optimizer,
    dataset: CocoDataset,
    settings: Settings,
    epoch: int,
    workers: int,
) -> dict[str, float]:
    """One pass over the training images; the mean of the total loss and of each part."""
    dataset.epoch = epoch
    torch.manual_seed(settings.seed * 1_000_003 + epoch)  # of the jitter, so that a continued run draws the same
    order = data.shuffled(len(dataset), settings.seed, epoch)
    loader = data.batches(dataset, settings.batch_size, workers=workers, order=order)
    device = next(refiner.parameters()).device
    sums: dict[str, Tensor] = {}
    for index, batch in enumerate(track(loader, f"epoch {epoch + 1}/{settings.epochs}", len(loader))):
        for group in optimizer.param_groups:
            group["lr"] = settings.rate(epoch * len(loader) + index, settings.epochs * len(loader))
        losses = train_step(detector, refiner, optimizer, batch.to(device), settings)
        for name, loss in losses.items():
            sums[name] = sums[name] + loss if name in sums else loss
    return {name: float(total) / len(loader) for name, total in sums.items()}


def train_step(
    detector: Detector, refiner: Refiner, optimizer: torch.optim.Optimizer, batch: Batch, settings: Settings
) -> dict[str, Tensor]:
    """One step of the optimizer; the total loss and its parts, detached.

    Raises:
        FloatingPointError: the loss is not finite; the refiner is left as it was.
    """
    try:
        losses = batch_losses(detector, refiner, batch, settings.jitter)
        total = torch.stack(list(losses.values())).sum()
        if not total.isfinite():
            raise FloatingPointError(f"the loss is {total.item()}; lower the learning rate or check these images")
    except FloatingPointError as error:
        raise FloatingPointError(f"images {', '.join(map(str, batch.image_ids))}: {error}") from error
    optimizer.zero_grad()
    total.backward()  # type: ignore[no-untyped-call]
    nn.utils.clip_grad_norm_(refiner.parameters(), settings.clip_norm)
    optimizer.step()
    return {"loss": total.detach()} | {name: loss.detach() for name, loss in losses.items()}


def batch_losses(detector: Detector, refiner: Refiner, batch: Batch, jitter: int = 0) -> dict[str, Tensor]:
    """The losses of every step over matched and jittered boxes; queries are matched once, before the first step."""
    output = detector(batch.images, batch.sizes)
    matches = match(detector.scores(output.logits), output.boxes, batch.targets, detector.profile.classification)
    image = matches.image.repeat(1 + jitter)
    wanted = matches.boxes.repeat(1 + jitter, 1)
    boxes = output.boxes[matches.image, matches.query]  # [M, 4]
    boxes = torch.cat([boxes, jittered(matches.boxes.repeat(jitter, 1))])  # [M * (1 + jitter), 4]
    steps = refiner.refine(output.features, boxes, image, batch.sizes)
    objects = max(1, sum(len(target.boxes) for target in batch.targets)) * (1 + jitter)
    return refinement_losses(steps, wanted, objects)


def jittered(boxes: Tensor, amount: float = 0.15) -> Tensor:
    """``[N, 4]`` boxes (cxcywh, fractions), centre and size changed at random by up to ``amount`` of each side."""
    noise = amount * (2 * torch.rand_like(boxes) - 1)
    centres, sizes = boxes[:, :2], boxes[:, 2:]
    return torch.cat([centres + noise[:, :2] * sizes, sizes * (1 + noise[:, 2:])], dim=1).clamp(0, 1)


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


def configuration(detector: Detector, training: CocoData, settings: Settings) -> dict[str, Any]:
    """What a run's ``config.json`` says, and what must not change before it is continued."""
    return {
        "detector": detector.profile.name,
        "detector_sha256": detector.weights_sha256(),
        "short_side": detector.profile.short_side,
        "long_side": detector.profile.long_side,
        "training_images": len(training.images),
        "training_boxes": len(training.annotations),
        **asdict(settings),
    }


def open_run(output: Path, config: Mapping[str, Any], continued: bool) -> None:
    """Makes the run's folder, or checks that the one to continue was started with the same ``config``."""
    if output.exists() and not output.is_dir():
        raise NotADirectoryError(f"{output} is a file; name a folder for the run")
    path = output / "config.json"
    if not continued:
        if path.exists():
            raise FileExistsError(f"{output} already holds a run; pass --resume to continue it, or name another folder")
        checkpoint.write_json(path, config)
        return
    if not path.exists():
        raise FileNotFoundError(f"{output} holds no run to continue; leave out --resume to start one")
    try:
        old = json.loads(path.read_text())
    except ValueError as error:
        raise ValueError(f"{path} is damaged ({error}); start a new run in another folder") from error
    changed = [
        f"{key} was {old.get(key)}, now {config.get(key)}"
        for key in {**old, **config}
        if old.get(key) != config.get(key)
    ]
    if changed:
        raise ValueError(
            f"{output} was started with other settings: {'; '.join(changed)}; use the old ones or another folder"
        )


def forget_after(metrics: Path, epoch: int) -> None:
    """Drops the lines of epochs that will be trained again."""
    if metrics.exists():
        lines = [line for line in metrics.read_text().splitlines() if json.loads(line)["epoch"] <= epoch]
        checkpoint.write_bytes(metrics, "".join(f"{line}\n" for line in lines).encode())


def record(output: Path, line: Mapping[str, Any], epochs: int) -> None:
    """Prints one epoch in one line, and adds it to ``metrics.jsonl``."""
    before, after = points(line["before"]), points(line["after"])
    change = f"AP {before:.1f} → {after:.1f} ({after - before:+.1f})"
    print(f"epoch {line['epoch']}/{epochs}: loss {line['loss']:.3f}, {change}, {line['seconds']:.0f} s", flush=True)
    with (output / "metrics.jsonl").open("a") as file:
        file.write(json.dumps(line) + "\n")


def write_refiner(
    path: Path, refiner: Refiner, detector: Detector, settings: Settings, best: Mapping[str, Any]
) -> None:
    """Writes the refiner and where it comes from, so that it is never applied to another detector by accident."""
    history = {
        "kind": "refiner",
        "strides": refiner.strides,
        "steps": refiner.steps,
        "detector": detector.profile.name,
        "detector_sha256": detector.weights_sha256(),
        "short_side": detector.profile.short_side,
        "long_side": detector.profile.long_side,
        "settings": asdict(settings),
        **best,
    }
    checkpoint.write(path, refiner.state_dict(), history)


def points(metrics: Metrics) -> float:
    """AP in points; 0 where the validation images hold no object at all."""
    return metrics["AP"] or 0.0
