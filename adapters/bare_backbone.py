"""A classification backbone of torchvision or timm as a source of features: it finds nothing.

Of each stride from 4 to 32 the last map is taken, as detectors do. torchvision's models are cut by its own tracer,
which drops the classifier; timm's are built as feature extractors.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from refinebox.detection.detector import Detector
from refinebox.detection.output import DetectorOutput
from refinebox.detection.profile import InputFormat, Profile
from refinebox.detection.tensors import load_tensors

FAMILY = "bare_backbone"
STRIDES = (4, 8, 16, 32)
PROBE = 128, 192  # height and width in pixels; they differ, so that it shows which dimension is which


class BareBackbone(Detector):
    """The feature maps of ``network``, and no boxes."""

    def __init__(self, network: "Stages", profile: Profile) -> None:
        super().__init__(profile)
        self.network = network
        self.freeze()

    def detect(self, images: Tensor, sizes: Tensor) -> DetectorOutput:
        features = self.extract(images, sizes)
        return DetectorOutput(features, images.new_zeros(len(images), 0, 4), images.new_zeros(len(images), 0, 0))

    def extract(self, images: Tensor, sizes: Tensor) -> tuple[Tensor, ...]:
        features: tuple[Tensor, ...] = self.network(images)
        return features

    def tensors(self) -> dict[str, Tensor]:
        return self.network.body.state_dict()


class Stages(nn.Module):
    """The last map of each stride among those that ``body`` returns, as ``[B, C_l, H_l, W_l]``.

    Raises:
        ValueError: none has a stride of 4, 8, 16 or 32, or images must have one size.
    """

    def __init__(self, body: nn.Module, name: str) -> None:
        super().__init__()
        self.body = body.eval()
        try:
            with torch.no_grad():
                maps = _listed(body(torch.zeros(1, 3, *PROBE)))
        except (AssertionError, RuntimeError) as error:
            raise ValueError(f"{name} does not take images of any size ({error}); name another backbone") from error
        last = {stride: index for index, feature in enumerate(maps) for stride in STRIDES if _order(feature, stride)}
        if not last:
            raise ValueError(f"{name} has no feature map of stride 4, 8, 16 or 32; name another backbone")
        self.chosen = [(last[stride], _order(maps[last[stride]], stride)) for stride in sorted(last)]

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        maps = _listed(self.body(images))
        return tuple(
            maps[index] if order == "NCHW" else maps[index].permute(0, 3, 1, 2) for index, order in self.chosen
        )


def is_backbone(library: str, model: str) -> bool:
    """Whether ``library:model`` names a backbone, rather than a detector or nothing at all.

    Raises:
        ValueError: timm is named and not installed.
    """
    if library == "timm":
        return bool(_timm())
    if library != "torchvision":
        return False
    import torchvision

    return model in torchvision.models.list_models(module=torchvision.models)


def build(state: Mapping[str, Tensor] | None, profile: Profile) -> Detector:
    """The backbone that ``profile.settings`` names, with the tensors of ``state`` or, without one, the library's own.

    A ``state`` may hold a classifier too, which is not used.

    Raises:
        ValueError: the library has no such model, the tensors are of another, or timm is not installed.
        ConnectionError: the weights could not be downloaded.
    """
    library, model = profile.settings["library"], profile.settings["model"]
    try:
        body = (_of_torchvision if library == "torchvision" else _of_timm)(model, own_weights=state is None)
    except OSError as error:
        raise ConnectionError(
            f"could not download the weights of {profile.name} ({error}); try again, or name their file with --weights"
        ) from error
    if state is not None:
        load_tensors(body, _placed(state, body, _tensor_names(library, model)), profile.name)
    return BareBackbone(Stages(body, profile.name), profile)


def profile(library: str, model: str) -> Profile:
    """What a backbone wants: the mean and deviation that its library trained it with, and DETR's sizes."""
    form = InputFormat(multiple=STRIDES[-1])
    known = _timm().get_pretrained_cfg(model) if library == "timm" else None
    if known is not None:
        form = replace(form, mean=tuple(known.mean), std=tuple(known.std))
    return Profile(f"{library}:{model}", FAMILY, input=form, settings={"library": library, "model": model})


def _of_torchvision(model: str, own_weights: bool) -> nn.Module:
    import torchvision
    from torchvision.models.feature_extraction import create_feature_extractor

    whole = torchvision.models.get_model(model, weights="DEFAULT" if own_weights else None).eval()
    seen: dict[str, Tensor] = {}

    def note(name: str) -> Any:
        return lambda _module, _inputs, output: seen.update({name: output})

    modules = [(name, module) for name, module in whole.named_modules() if name and name.count(".") <= 1]
    hooks = [module.register_forward_hook(note(name)) for name, module in modules]
    try:
        with torch.no_grad():
            whole(torch.zeros(1, 3, *PROBE))
    except (AssertionError, RuntimeError) as error:  # as a vision transformer's, whose images have one size
        raise ValueError(
            f"torchvision:{model} does not take images of any size ({error}); name another backbone"
        ) from error
    for hook in hooks:
        hook.remove()
    last = {stride: name for name, x in seen.items() for stride in STRIDES if _order(x, stride)}
    if not last:
        raise ValueError(f"torchvision:{model} has no feature map of stride 4, 8, 16 or 32; name another backbone")
    extractor: nn.Module = create_feature_extractor(whole, [last[stride] for stride in sorted(last)])
    return extractor


def _of_timm(model: str, own_weights: bool) -> nn.Module:
    timm = _timm()
    try:
        extractor: nn.Module = timm.create_model(model, pretrained=own_weights, features_only=True)
    except RuntimeError as error:  # how timm says that it has no such model, or none with these weights
        raise ValueError(f"timm:{model} cannot be had: {error}; timm.list_models() names all") from error
    return extractor


def _timm() -> Any:
    try:
        import timm
    except ImportError as error:
        raise ValueError("backbones of timm need timm; pip install 'refinebox[timm]'") from error
    return timm


def _tensor_names(library: str, model: str) -> set[str]:
    """Of the whole model, with its classifier."""
    with torch.device("meta"):
        if library == "timm":
            return set(_timm().create_model(model).state_dict())
        import torchvision

        return set(torchvision.models.get_model(model, weights=None).state_dict())


def _placed(state: Mapping[str, Tensor], body: nn.Module, whole: set[str]) -> dict[str, Tensor]:
    """``state`` in the names of ``body``, without what only the whole model has.

    timm's extractors write some dots as underscores.
    """
    own = body.state_dict()
    plain = {name.replace(".", "_"): name for name in own}
    named = {plain.get(name.replace(".", "_"), name): tensor for name, tensor in state.items()}
    counters = {name: tensor for name, tensor in own.items() if name.endswith("num_batches_tracked")}  # old files lack
    return counters | {name: tensor for name, tensor in named.items() if name in own or name not in whole}


def _listed(found: Any) -> list[Tensor]:
    return list(found.values() if isinstance(found, dict) else found)


def _order(feature: Any, stride: int) -> str:
    """Where a map of ``stride`` for the probe has its channels, or nothing where it is none."""
    cells = tuple(side // stride for side in PROBE)
    if not isinstance(feature, Tensor) or feature.dim() != 4:
        return ""
    return "NCHW" if feature.shape[2:] == cells else "NHWC" if feature.shape[1:3] == cells else ""
