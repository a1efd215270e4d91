"""Tables of names: one layout's beside the authors', and how a state dict is renamed by one.

Both are beginnings of keys, ``#`` stands for a number, and the first row that fits a key counts. Where a table has None
for the authors' name, the tensor plays no part at inference and is left out.
"""

import re
from collections.abc import Iterable, Mapping
from itertools import product

from torch import Tensor

Table = tuple[tuple[str, str | None], ...]

BODY = "backbone.0.body."
ENCODER_LAYER, DECODER_LAYER = "transformer.encoder.layers.#.", "transformer.decoder.layers.#."


def under(prefixes: tuple[str, str], names: Iterable[tuple[str, str]]) -> Table:
    """The rows of ``names`` with a prefix before each side."""
    return tuple((prefixes[0] + there, prefixes[1] + here) for there, here in names)


def left_out(*names: str) -> Table:
    """Rows that leave tensors out."""
    return tuple((name, None) for name in names)


def further_levels(state: Mapping[str, Tensor], norm: str) -> Table:
    """Rows of the levels that are made from the coarsest map, which are counted apart from the others in necks."""
    first = sum(key.startswith("neck.convs.") and key.endswith(".conv.weight") for key in state)
    count = sum(key.startswith("neck.extra_convs.") and key.endswith(".conv.weight") for key in state)
    return tuple(
        (f"neck.extra_convs.{index}.{there}.", f"input_proj.{first + index}.{here}.")
        for index, (there, here) in product(range(count), (("conv", 0), (norm, 1)))
    )


def rename(state: Mapping[str, Tensor], table: Table) -> dict[str, Tensor]:
    """The same tensors with every key's beginning replaced by the first row of ``table`` that fits it."""
    rules = [
        (re.compile(re.escape(there).replace(r"\#", r"(\d+)")), None if here is None else _template(here))
        for there, here in table
    ]
    renamed = {}
    for key, tensor in state.items():
        name = _renamed(key, rules)
        if name is not None:
            renamed[name] = tensor
    return renamed


def _renamed(key: str, rules: Iterable[tuple[re.Pattern[str], str | None]]) -> str | None:
    for pattern, template in rules:
        if found := pattern.match(key):
            return None if template is None else found.expand(template) + key[found.end() :]
    return key


def _template(here: str) -> str:
    first, *others = here.split("#")
    return first + "".join(rf"\g<{number}>{part}" for number, part in enumerate(others, start=1))
