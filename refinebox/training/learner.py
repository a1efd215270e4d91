"""The refiner while it learns: from what the detector saw in a batch to new weights."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Self, cast

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from refinebox import distributed
from refinebox.detection.detector import Detector
from refinebox.refinement.jitter import jittered, noise
from refinebox.refinement.losses import loss_names, refinement_losses
from refinebox.refinement.refiner import Refiner
from refinebox.training.observation import Observation
from refinebox.training.settings import Settings

FAR = "far_matches"  # share of the objects whose prediction is too far away to be learned from
FIT = "overlap"  # mean IoU of the objects with their predictions
Observe = Callable[[Any], Observation]  # of a batch, or of what a cache knows of one


@dataclass(frozen=True)
class Learner:
    """A refiner that learns, the moving average of its weights, and the optimizer."""

    refiner: Refiner
    average: AveragedModel
    optimizer: torch.optim.Optimizer

    @classmethod
    def start(cls, detector: Detector, settings: Settings) -> Self:
        """A new one, as the seed makes it, on the detector's device."""
        torch.manual_seed(settings.seed)
        refiner = Refiner(detector.channels, detector.strides, settings.steps, settings.architecture)
        refiner.to(next(detector.parameters()).device)
        average = AveragedModel(refiner, multi_avg_fn=partial(move_average, settings.average))
        return cls(refiner, average, build_optimizer(refiner, settings))

    def step(self, observe: Observe, batches: Sequence[Any], settings: Settings, epoch: int = 0) -> dict[str, float]:
        """One step on the parts of a batch that this process has; the total loss and its parts.

        Parts without images are passed over; where no process has an image, nothing is learned and the losses are 0.

        Raises:
            FloatingPointError: the loss is not finite; the refiner is left as it was.
            ConnectionError: another process has ended.
        """
        parameters, names = list(self.refiner.parameters()), [*loss_names(settings.steps), FAR, FIT]
        batches = [batch for batch in batches if batch.image_ids]
        counts = [sum(len(batch.image_ids) for batch in batches), sum(batch.objects for batch in batches)]
        images, objects = distributed.totals(counts, parameters[0].device)
        if not images:
            return dict.fromkeys(["loss", *names], 0.0)
        key = f"{settings.seed} {epoch}"
        self.optimizer.zero_grad()
        sums = torch.zeros(len(names), device=parameters[0].device)
        for batch in batches:
            try:
                observed = observe(batch)
                overlaps = observed.overlaps()
                near = overlaps >= settings.least_overlap
                losses = observed_losses(self.refiner, observed, settings.jitter, objects or 1, key, near)
                parts = torch.stack(list(losses.values()))
                if not parts.isfinite().all():
                    raise FloatingPointError(
                        f"the loss is {parts.sum().item()}; lower the learning rate or check these images"
                    )
            except FloatingPointError as error:
                raise FloatingPointError(f"images {', '.join(map(str, batch.image_ids))}: {error}") from error
            parts.sum().backward()  # type: ignore[no-untyped-call]
            sums += torch.cat([parts.detach(), torch.stack([(~near).sum(), overlaps.sum()]) / (objects or 1)])
        distributed.total_gradients(parameters)
        nn.utils.clip_grad_norm_(parameters, settings.clip_norm)
        self.optimizer.step()
        self.average.update_parameters(self.refiner)
        totals = distributed.total(sums).tolist()
        return {"loss": sum(totals[:-2])} | dict(zip(names, totals, strict=True))

    @property
    def device(self) -> torch.device:
        """Where it learns."""
        return next(self.refiner.parameters()).device

    def set_rate(self, rate: float) -> None:
        """Sets the learning rate of the next step."""
        for group in self.optimizer.param_groups:
            group["lr"] = rate

    @property
    def averaged(self) -> Refiner:
        """The refiner with the averaged weights."""
        return cast(Refiner, self.average.module)

    @property
    def models(self) -> dict[str, nn.Module]:
        """What is saved under which name."""
        return {"model": self.refiner, "average": self.average}


def observed_losses(
    refiner: Refiner,
    observed: Observation,
    jitter: int = 0,
    objects: int | None = None,
    key: str = "",
    near: Tensor | None = None,
) -> dict[str, Tensor]:
    """The losses of every step over matched and jittered boxes.

    Args:
        refiner, observed: what is trained on what.
        jitter: copies of every object.
        objects: what the sums are divided by; the matched ones by default.
        key: decides the jitter, together with the images' ids.
        near: ``[M]`` bool, which of the predicted boxes are learned from; all by default.
    """
    counts = observed.image.bincount(minlength=len(observed.image_ids)).tolist()
    drawn = noise(observed.image_ids, counts, jitter, key).to(observed.wanted)  # [J, M, 4]
    boxes = torch.cat([observed.boxes, jittered(observed.wanted, drawn).flatten(0, 1)])  # [M * (1 + J), 4]
    image, wanted = observed.image.repeat(1 + jitter), observed.wanted.repeat(1 + jitter, 1)
    if near is not None:
        kept = torch.cat([near, near.new_ones(len(boxes) - len(near))])
        boxes, image, wanted = boxes[kept], image[kept], wanted[kept]
    steps = refiner.refine(observed.features, boxes, image, observed.sizes)
    count = max(1, len(observed.boxes)) if objects is None else objects
    return refinement_losses(steps, wanted, count * (1 + jitter), refiner.architecture.moves)


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
    return torch.optim.AdamW(groups, lr=settings.learning_rate, fused=True)


def move_average(decay: float, averages: Sequence[Tensor], weights: Sequence[Tensor], count: Tensor | int) -> None:
    """Moves ``averages`` towards ``weights``; quickly after few updates, so that the start is soon forgotten."""
    decay = min(decay, (1 + int(count)) / (10 + int(count)))
    for average, weight in zip(averages, weights, strict=True):
        average.lerp_(weight, 1 - decay)
