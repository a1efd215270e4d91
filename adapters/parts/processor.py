"""What a transformers image processor, once it is there, does to images."""

import inspect
from typing import Any

from refinebox.adapters.layouts.preprocessing import input_format

from refinebox.detection.profile import InputFormat

WITHOUT_ANTIALIAS = "PPDocLayout"  # these processors resize as OpenCV does
WHOLE_PATCHES = {"Yolos": 16}  # these round sides down


def read(processor: Any, multiple: int = 1) -> InputFormat:
    """How the processor makes images into inputs.

    Args:
        processor: a transformers image processor.
        multiple: that the network wants the sides to be padded to.

    Raises:
        ValueError: it does something that an input format cannot say; the message names the setting.
    """
    name, settings = type(processor).__name__, processor.to_dict()
    pillow = not any(base.__name__ == "TorchvisionBackend" for base in type(processor).__mro__)
    form = InputFormat(
        multiple=multiple,
        rounding="transformers",
        library="pillow" if pillow else "torch",
        antialias=not name.startswith(WITHOUT_ANTIALIAS),
        step=next((step for start, step in WHOLE_PATCHES.items() if name.startswith(start)), 1),
    )
    return input_format(settings, form, settings)


def limit(processor: Any) -> int | None:
    """Detections that its post-processing keeps; None for as many as there are queries."""
    parameter = inspect.signature(processor.post_process_object_detection).parameters.get("top_k")
    top: int | None = None if parameter is None else parameter.default
    return top
