"""Where the feature maps of a model of transformers are."""

from collections.abc import Iterator
from typing import Any

from refinebox.adapters.parts.taps import Reader, maps_in
from torch import Tensor, nn

from refinebox.detection.extras import library


def places(network: Any) -> list[tuple[nn.Module, Reader]]:
    """Where the feature maps of a model are, whatever its family."""
    found = list(_places(network))
    if not found and hasattr(network, "vit"):  # YOLOS has no backbone beside its transformer
        return [(network.vit, patches(network.config))]
    return found


def _places(network: Any) -> Iterator[tuple[nn.Module, Reader]]:
    mixin = library("transformers.backbone_utils", "transformers").BackboneMixin
    for module in network.modules():
        ancestors = {ancestor.__name__ for ancestor in type(module).__mro__}
        if isinstance(module, mixin):
            module.register_forward_pre_hook(_with_all_stages, with_kwargs=True)
            yield module, stages
        elif "FeatureListNet" in ancestors:  # timm
            names = {entry["module"] for entry in module.feature_info.info}
            yield from ((child, maps_in) for name, child in module.named_children() if name in names)
        elif type(module).__name__.endswith("ConvEncoder"):  # changes the backbone's maps in some families
            yield module, maps_in
            yield from ((child, maps_in) for name, child in module.named_modules() if name.endswith("stem_pool"))


def _with_all_stages(_module: nn.Module, arguments: Any, options: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    return arguments, {**options, "output_hidden_states": True}


def stages(output: Any, images: Tensor) -> list[Tensor]:
    """Maps of all stages of a backbone; those that the detector reads come last, as they are normalised."""
    return [*maps_in(output.hidden_states, images), *maps_in(output.feature_maps, images)]


def patches(config: Any) -> Reader:
    """Reads the tokens of the image's patches, which stand between the class's and the detections', as one map."""
    size = config.patch_size

    def read(output: Any, images: Tensor) -> list[Tensor]:
        tokens = output.last_hidden_state[:, 1 : -config.num_detection_tokens]  # [B, L, C]
        grid = tuple(side // size for side in images.shape[-2:])
        return [tokens.transpose(1, 2).unflatten(2, grid)]

    return read
