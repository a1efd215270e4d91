"""The settings of a transformers image processor as an :class:`InputFormat`."""

import inspect
from typing import Any, Literal

from refinebox.detection.profile import InputFormat

RESAMPLING: dict[int, Literal["nearest", "bilinear", "bicubic"]] = {0: "nearest", 2: "bilinear", 3: "bicubic"}
WITHOUT_ANTIALIAS = "PPDocLayout"  # these processors resize as OpenCV does


def read(processor: Any, multiple: int = 1) -> InputFormat:
    """How the processor makes images into inputs.

    Args:
        processor: a transformers image processor.
        multiple: that the network wants the sides to be padded to.

    Raises:
        ValueError: it does something that an input format cannot say; the message names the setting.
    """
    name = type(processor).__name__
    for setting, why in (("do_center_crop", "crops images"), ("do_thumbnail", "makes thumbnails")):
        if getattr(processor, setting, None):
            raise ValueError(f"{name} {why} ({setting}); boxes outside would be lost; switch it off")
    if not processor.do_resize:
        raise ValueError(
            f"{name} leaves images as large as they are (do_resize is false); give it a size in the folder"
        )
    if processor.resample not in RESAMPLING:
        raise ValueError(f"{name} resamples by method {processor.resample}, expected one of {sorted(RESAMPLING)}")
    scale = 255 * processor.rescale_factor if processor.do_rescale else 255.0
    mean, std = (processor.image_mean, processor.image_std) if processor.do_normalize else ([0.0] * 3, [1.0] * 3)
    pillow = "Pil" in name or not any("Torch" in base.__name__ for base in type(processor).__mro__)
    return InputFormat(
        **_size(processor, name),
        multiple=multiple,
        mean=tuple(value / scale for value in mean),
        std=tuple(value / scale for value in std),
        rounding="transformers",
        resampling=RESAMPLING[processor.resample],
        library="pillow" if pillow else "torch",
        antialias=pillow or WITHOUT_ANTIALIAS not in name,
        step=16 if name.startswith("Yolos") else 1,  # its sides are rounded down to whole patches
    )


def limit(processor: Any) -> int | None:
    """Detections that its post-processing keeps; None for as many as there are queries."""
    parameter = inspect.signature(processor.post_process_object_detection).parameters.get("top_k")
    return None if parameter is None else parameter.default


def _size(processor: Any, name: str) -> dict[str, Any]:
    size, padded = _given(processor.size), _given(getattr(processor, "pad_size", None))
    keys = set(size)
    if keys == {"height", "width"}:
        return {"fit": "stretch", **size}
    if size and size == {f"max_{side}": pixels for side, pixels in padded.items()}:
        return {"fit": "letterbox", **padded}
    if keys == {"shortest_edge", "longest_edge"} and not padded:
        return {"short_side": size["shortest_edge"], "long_side": size["longest_edge"]}
    raise ValueError(
        f"{name} has the size {size}{f' and pads to {padded}' if padded else ''}; expected shortest_edge and "
        "longest_edge, height and width, or max_height and max_width with the same pad_size"
    )


def _given(size: Any) -> dict[str, int]:
    return {key: int(value) for key, value in dict(size or {}).items() if value is not None}
