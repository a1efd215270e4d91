"""An ONNX model with its convolutions and matrix products in half precision, and everything else as it was.

What computes where a box is stays float32: the last layer of every box head, and all arithmetic on coordinates. So do
normalisations and softmax, which overflow first. onnxruntime's own converter brings inputs and outputs through half
precision, where 1333 pixels are no longer whole.
"""

from collections.abc import Iterable
from typing import Any

import numpy as np

from refinebox.detection.extras import library

PRODUCTS = {"Conv", "ConvTranspose", "Gemm", "MatMul"}
# what stays in half precision between two of them
CARRIED = {"Add", "Mul", "Relu", "PRelu", "Gelu", "MaxPool", "Concat", "Reshape", "Transpose", "Unsqueeze", "Squeeze"}
COORDINATES = 4  # a layer with no more inputs or outputs is a box's


def halved(model: Any) -> Any:
    """The same model (``onnx.ModelProto``, changed in place); its inputs and outputs stay as they were.

    Products take half-precision inputs and weights, and what lies between them keeps their precision.
    """
    onnx = library("onnx", "onnx")
    graph, single, half = model.graph, onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16
    weights = {tensor.name: tensor for tensor in graph.initializer if tensor.data_type == single}
    known = (*graph.input, *graph.value_info, *graph.output)
    floats = {value.name for value in known if value.type.tensor_type.elem_type == single} | set(weights)
    halves = half_values(graph, floats)
    cast: dict[tuple[str, int], str] = {}
    nodes = []

    def as_type(name: str, kind: int) -> str:
        """The value in the other precision, made where it is first wanted."""
        if (name, kind) not in cast:
            cast[name, kind] = f"{name}_{'half' if kind == half else 'single'}"
            if kind == half and name in weights:
                array = onnx.numpy_helper.to_array(weights[name])
                limit = np.finfo(np.float16).max
                finite = np.where(np.isfinite(array), array.clip(-limit, limit), array).astype(np.float16)
                graph.initializer.append(onnx.numpy_helper.from_array(finite, cast[name, kind]))
            else:
                nodes.append(onnx.helper.make_node("Cast", [name], [cast[name, kind]], to=kind))
        return cast[name, kind]

    for node in graph.node:
        in_half = node.output[0] in halves
        for place, name in enumerate(node.input):
            if in_half and name in floats and name not in halves:
                node.input[place] = as_type(name, half)
            elif not in_half and name in halves:
                node.input[place] = as_type(name, single)
        nodes.append(node)
    for value in graph.output:
        if value.name in halves:
            inner = f"{value.name}_inner"
            rename(nodes, value.name, inner)
            nodes.append(onnx.helper.make_node("Cast", [inner], [value.name], to=single))
    del graph.value_info[:]  # which says what types were
    del graph.node[:]
    graph.node.extend(nodes)
    drop_unused(graph)
    return model


def half_values(graph: Any, floats: set[str]) -> set[str]:
    """Names of the values that are computed in half precision; ``floats`` are those that are floating point."""
    sides = {tensor.name: tensor.dims for tensor in graph.initializer}
    constants = set(sides)  # and what is computed from them alone
    halves: set[str] = set()
    for node in graph.node:
        given = [name for name in node.input if name in floats]
        changing = [name for name in given if name not in constants]
        if all(name in constants for name in filter(None, node.input)):
            constants.update(node.output)
        elif node.op_type in PRODUCTS:
            layers = [sides[name] for name in given if name in sides]
            if all(min(each) > COORDINATES for each in layers if len(each) == 2):
                halves.add(node.output[0])
        elif node.op_type in CARRIED and changing and all(name in halves for name in changing):
            halves.add(node.output[0])
    return halves & floats


def rename(nodes: Iterable[Any], old: str, new: str) -> None:
    """Gives a value another name wherever it stands."""
    for node in nodes:
        for names in (node.input, node.output):
            for place, name in enumerate(names):
                if name == old:
                    names[place] = new


def drop_unused(graph: Any) -> None:
    """Takes out initializers that no node reads any more."""
    used = {name for node in graph.node for name in node.input} | {value.name for value in graph.output}
    kept = [tensor for tensor in graph.initializer if tensor.name in used]
    del graph.initializer[:]
    graph.initializer.extend(kept)
