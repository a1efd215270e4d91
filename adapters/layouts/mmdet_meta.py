"""What a checkpoint of mmdetection says beside its tensors: names of categories, and its configuration as text."""

import ast
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from refinebox.detection.profile import Profile


def names_in(meta: Mapping[str, Any]) -> tuple[str, ...]:
    """The name of each score column; empty where the file does not say."""
    dataset = meta.get("dataset_meta")
    names = dataset.get("classes", dataset.get("CLASSES")) if isinstance(dataset, Mapping) else meta.get("CLASSES")
    if isinstance(names, str):  # a data set of one category
        return (names,)
    return tuple(map(str, names)) if isinstance(names, list | tuple) else ()


def read(meta: Mapping[str, Any], profile: Profile) -> Profile:
    """``profile`` with the number of queries and the constants of the position embedding that ``meta`` says.

    What the file says goes before the name, which then stands for models that were trained with other settings too.
    """
    text = meta.get("cfg", meta.get("config"))  # as versions 3 and 2 call it
    model = _model(text) if isinstance(text, str) else {}
    head = model.get("query_head") or model.get("bbox_head")
    places = [model, head if isinstance(head, dict) else {}]
    settings = dict(profile.settings)
    for place in places:
        queries = place.get("num_queries", place.get("num_query"))
        if isinstance(queries, int):
            settings["queries"] = queries
        position = place.get("positional_encoding")
        if isinstance(position, dict):
            settings["temperature"] = float(position.get("temperature", 10000))
            settings["offset"] = float(position.get("offset", 0))
    return replace(profile, settings=settings)


def _model(text: str) -> dict[str, Any]:
    """The literal parts of ``model = dict(...)`` in a configuration; nothing of it is run."""
    try:
        statements = ast.parse(text).body
    except SyntaxError:
        return {}
    for statement in statements:
        if isinstance(statement, ast.Assign) and ast.unparse(statement.targets[0]) == "model":
            value = _literal(statement.value)
            return value if isinstance(value, dict) else {}
    return {}


def _literal(node: ast.expr) -> Any:
    """A value; None for what is no literal."""
    if isinstance(node, ast.Call):
        return {keyword.arg: _literal(keyword.value) for keyword in node.keywords if keyword.arg}
    try:
        return ast.literal_eval(node)
    except ValueError:
        return None
