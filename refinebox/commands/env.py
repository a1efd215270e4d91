"""``refinebox env``: what a report of a bug needs to say about a machine."""

import os
import platform
import sys
from importlib import metadata

import typer

LIBRARIES = (
    "refinebox",
    "torch",
    "torchvision",
    "numpy",
    "pycocotools",
    "faster-coco-eval",
    "hotcoco",
    "safetensors",
    "pillow",
    "transformers",
    "timm",
    "effdet",
    "libreyolo",
    "onnx",
    "onnxscript",
    "onnxruntime",
)
EXAMPLE = "Example: refinebox env"


def env() -> None:
    """Versions, processors and the place of downloads, to paste into a bug report."""
    import torch

    from refinebox.files.download import home

    lines = {
        "python": f"{platform.python_version()} ({sys.executable})",
        "system": f"{platform.platform()}, {os.cpu_count()} processors",
        **{name: version(name) for name in LIBRARIES},
        "threads": str(torch.get_num_threads()),
        "gpus": gpus(),
        "downloads": str(home()),
    }
    width = max(map(len, lines))
    for name, said in lines.items():
        typer.echo(f"{name + ':':{width + 1}} {said}")


def version(name: str) -> str:
    """Of an installed distribution."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "not installed"


def gpus() -> str:
    """Their names, and the CUDA that torch was built with."""
    import torch

    if not torch.cuda.is_available():
        return f"none that torch {torch.__version__} can use"
    names = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return f"{', '.join(names)} (CUDA {torch.version.cuda})"
