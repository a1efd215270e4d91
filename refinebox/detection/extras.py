"""Libraries that only some detectors need, and how to install one that is missing."""

import importlib
from typing import Any


def library(module: str, extra: str) -> Any:
    """The imported module.

    Raises:
        ValueError: it cannot be imported; the message names the extra that brings it.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ValueError(
            f"{module} is needed for this detector and cannot be imported ({error}); run: pip install "
            f"'refinebox[{extra}]'"
        ) from error
