"""What a transformers image processor does to images before a detector sees them."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, Literal

from refinebox.detection.profile import InputFormat

RESAMPLING: dict[int, Literal["nearest", "bilinear", "bicubic"]] = {
    0: "nearest",
    2: "bilinear",
    3: "bicubic",
}  # Pillow's numbers
# what is read below, and what changes no pixel: names, kinds of input and output, what becomes of annotations;
# padding is on the right and at the bottom and masked, so that it changes nothing in the detectors that are read
KNOWN = frozenset(
    (
        *("do_resize", "size", "max_size", "resample", "do_rescale", "rescale_factor", "do_normalize", "image_mean"),
        *("image_std", "do_pad", "pad_size", "pad_and_return_pixel_mask", "do_convert_annotations", "do_convert_rgb"),
        *("do_reduce_labels", "default_to_square", "format", "data_format", "input_data_format", "return_tensors"),
        *("return_segmentation_masks", "masks_path", "annotations", "device", "disable_grouping", "dtype", "auto_map"),
        *("image_processor_type", "feature_extractor_type", "processor_class", "model_input_names", "num_channels"),
        *("image_seq_length", "torch_dtype", "transformers_version"),
    )
)


class Unsupported(ValueError):
    """A setting that cannot be done here."""


def input_format(config: Mapping[str, Any], form: InputFormat, keys: Iterable[str] = ()) -> InputFormat:
    """``form`` as ``config`` changes it.

    Args:
        config: what ``preprocessor_config.json`` says, perhaps with the model's own configuration.
        form: what holds where the configuration says nothing.
        keys: the names in ``preprocessor_config.json`` alone, all of which must be known.

    Raises:
        ValueError: a setting cannot be done here, or is unknown; the message names it.
    """
    unknown = [key for key in keys if key not in KNOWN and not key.startswith("_") and config.get(key)]
    unknown = [key for key in unknown if not (key == "crop_size" and not config.get("do_center_crop"))]
    if unknown:
        raise unsupported(unknown[0], config[unknown[0]], "it is unknown and may change pixels")
    if config.get("do_resize", True) is False:
        raise unsupported("do_resize", False, "images are always resized")
    resample = config.get("resample", 2)
    if resample not in RESAMPLING:
        raise unsupported("resample", resample, f"expected one of {', '.join(map(str, RESAMPLING))}")
    form = replace(sized(config, form), resampling=RESAMPLING[resample])
    mean, std = normalisation(config, form)
    return replace(form, mean=mean, std=std)


def sized(config: Mapping[str, Any], form: InputFormat) -> InputFormat:
    """With the size that ``config`` gives, in each of the forms that it has had."""
    size = config.get("size") or {}
    if isinstance(size, int):  # preprocessors of old versions
        size = {"shortest_edge": size}
    given = {key: int(value) for key, value in size.items() if value is not None}
    if config.get("max_size") and "shortest_edge" in given:
        given.setdefault("longest_edge", int(config["max_size"]))
    if given.keys() <= {"shortest_edge", "longest_edge"} and given.keys() != {"longest_edge"}:
        return form.resized(given.get("shortest_edge"), given.get("longest_edge"))
    if given.keys() == {"height", "width"}:
        return replace(form, fit="stretch", height=given["height"], width=given["width"])
    if given.keys() == {"max_height", "max_width"}:
        return replace(form, fit="letterbox", height=given["max_height"], width=given["max_width"])
    raise unsupported(
        "size", size, "expected shortest_edge and longest_edge, height and width, or max_height and max_width"
    )


def normalisation(config: Mapping[str, Any], form: InputFormat) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and deviation of pixels between 0 and 1 that do what ``config`` does to pixels between 0 and 255."""
    mean, std = (
        tuple(float(value) for value in config.get(key) or default)
        for key, default in (("image_mean", form.mean), ("image_std", form.std))
    )
    if len(mean) != 3 or len(std) != 3 or not all(std):
        raise unsupported("image_mean", [*mean, *std], "expected three numbers, and three above 0 as image_std")
    if config.get("do_normalize", True) is False:
        mean, std = (0.0,) * 3, (1.0,) * 3
    factor = float(config.get("rescale_factor") or 1 / 255) if config.get("do_rescale", True) else 1.0
    if abs(factor * 255 - 1) < 1e-6:
        return mean, std
    return tuple(value / (255 * factor) for value in mean), tuple(value / (255 * factor) for value in std)


def unsupported(key: str, value: Any, why: str) -> Unsupported:
    """An error that names a setting."""
    return Unsupported(f"{key} {value!r} in preprocessor_config.json is not supported: {why}")
