"""From a part to a graph without Python: what torch.export needs to be told, and what must be kept from it."""

import builtins
import logging
import re
import sys
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout
from io import StringIO
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram

from refinebox.refinement.exportable import Part, sizes_of

TRACED = 3  # images; not one, which would be taken for a constant


def traced(part: Part) -> ExportedProgram:
    """The graph of a part; batch and, where the detector takes images of any size, height and width are open.

    Raises:
        ValueError: an operation depends on what is in the image, or fixes a size.
    """
    [height, width], *_ = sizes_of(part.detector)
    with quiet(), torch.no_grad(), open_lengths(part):
        try:
            arguments = part.examples(TRACED, height, width)
            return torch.export.export(part, arguments, dynamic_shapes=part.free, strict=False)
        except Exception as error:  # whatever an exporter raises is the detector's obstacle
            raise refused(part, error) from error


def without_checks(program: ExportedProgram) -> ExportedProgram:
    """The same graph, changed in place, without what code of libraries asserts on its way, which ONNX cannot say."""
    graph = program.graph
    for node in list(graph.nodes):
        if node.op == "call_function" and "_assert" in str(node.target):
            asked = [each for each in node.all_input_nodes if "_is_all_true" in str(each.target)]
            graph.erase_node(node)
            for each in asked:
                if not each.users:
                    graph.erase_node(each)
    program.graph_module.recompile()
    return program


def refused(part: Part, error: Exception, who: str = "torch") -> ValueError:
    """What is said where an exporter, which writes pages, cannot go on."""
    text = re.sub(r"\x1b\[\d*m", "", str(error)).strip()  # some of it is coloured
    lacking = re.search(r"No ONNX function found for <OpOverload\(op='([^']+)'", text)
    if "data-dependent" in text:
        reason = "a shape in it depends on what is in the image, as after a suppression"
    elif "Constraints violated" in text:
        reason = "its code makes a number of the size of a batch, which a graph has to leave open"
    elif lacking:
        reason = f"ONNX has no counterpart of {lacking[1]}"
    else:
        reason = f"{who} says {text.partition(chr(10))[0].partition(' For more information')[0]}"
    return ValueError(f"{part.detector.profile.name} cannot be exported: {reason}")


@contextmanager
def open_lengths(part: nn.Module) -> Iterator[None]:
    """``len`` of a tensor as its symbolic first side in the modules that the part's code lies in.

    Python's own can only return a number, so that a batch whose length was asked for, as libraries do, would be fixed.
    """
    modules = {sys.modules[type(module).__module__] for module in part.modules()}
    with ExitStack() as patched:
        for module in modules:
            if not module.__name__.startswith("torch."):  # whose own code knows about symbols
                patched.enter_context(patch.object(module, "len", length, create=True))
        yield


def length(of: Any) -> Any:
    """As ``len``, but a symbol where the first side of a tensor is one."""
    return of.shape[0] if isinstance(of, Tensor) else builtins.len(of)


@contextmanager
def quiet() -> Iterator[None]:
    """Without the exporters' remarks, which are for those who write them."""
    level = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), redirect_stdout(StringIO()), redirect_stderr(StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)
