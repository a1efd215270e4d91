"""Where the feature maps of a model of transformers are."""

from collections.abc import Iterator
from typing import Any

from refinebox.adapters.parts.taps import Reader, maps_in
from torch import Tensor, nn

from refinebox.detection.extras import library

CHANGING = ("ConvEncoder", "VisionBackbone")  # ends of names of what changes the backbone's maps in some families


def places(network: Any) -> list[tuple[nn.Module, Reader]]:
    """Where the feature maps of a model are, whatever its family."""
    found = list(_places(network))
    if not found and hasattr(network, "vit"):  # YOLOS has no backbone beside its transformer
        return [(network.vit, patches(network.config))]
    return found


def _places(network: Any) -> Iterator[tuple[nn.Module, Reader]]:
    mixin = library("transformers.backbone_utils", "transformers").BackboneMixin
    for module in network.modules():
        if isinstance(module, mixin) and not of_timm(getattr(module, "_backbone", None)):  # which comes next
            module.register_forward_pre_hook(_with_all_stages, with_kwargs=True)
            yield module, stages
        elif of_timm(module):
            names = {entry["module"].replace(".", "_") for entry in module.feature_info.info}
            reader = channels_last if module.output_fmt == "NHWC" else maps_in
            yield from ((child, reader) for name, child in module.named_children() if name in names)
        elif type(module).__name__.endswith(CHANGING):
            yield module, maps_in
            yield from ((child, maps_in) for name, child in module.named_modules() if name.endswith("stem_pool"))


def of_timm(module: Any) -> bool:
    """Whether a module is timm's list of stages."""
    return "FeatureListNet" in {ancestor.__name__ for ancestor in type(module).__mro__}


def _with_all_stages(_module: nn.Module, arguments: Any, options: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    return arguments, {**options, "output_hidden_states": True}


def stages(output: Any, images: Tensor) -> list[Tensor]:
    """Maps of all stages of a backbone; those that the detector reads come last, as they are normalised."""
    return [*maps_in(output.hidden_states, images), *maps_in(output.feature_maps, images)]


def channels_last(output: Any, images: Tensor) -> list[Tensor]:
    """Maps ``[B, H, W, C]``, as timm's Swin has them, with the channels where others have them."""
    return [tensor.permute(0, 3, 1, 2) for tensor in maps_in(output, images)]


def patches(config: Any) -> Reader:
    """Reads the tokens of the image's patches, which stand between the class's and the detections', as one map."""
    size = config.patch_size

    def read(output: Any, images: Tensor) -> list[Tensor]:
        tokens = output.last_hidden_state[:, 1 : -config.num_detection_tokens]  # [B, L, C]
        grid = tuple(side // size for side in images.shape[-2:])
        return [tokens.transpose(1, 2).unflatten(2, grid)]

    return read
