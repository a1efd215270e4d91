"""Libraries that only some detectors or outputs need, and how to install one that is missing."""

import importlib
from typing import Any


def library(module: str, extra: str, use: str = "this detector") -> Any:
    """The imported module, which is needed for ``use``.

    Raises:
        ValueError: it cannot be imported; the message names the extra that brings it.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ValueError(
            f"{module} is needed for {use} and cannot be imported ({error}); run: pip install 'refinebox[{extra}]'"
        ) from error
