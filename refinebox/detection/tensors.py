"""Tensors of a checkpoint into a network: every one in its place and none left over."""

from collections.abc import Mapping

from torch import Tensor, nn


def load_tensors(network: nn.Module, state: Mapping[str, Tensor], name: str) -> None:
    """Loads ``state`` into ``network``, every tensor in its place and none left over.

    Raises:
        ValueError: otherwise; the message names the first few tensors and counts the rest.
    """
    expected = network.state_dict()
    for problem, keys in (
        ("lacks", [key for key in expected if key not in state]),
        ("holds unknown", [key for key in state if key not in expected]),
        (
            "has the wrong shape for",
            [key for key in expected if key in state and state[key].shape != expected[key].shape],
        ),
    ):
        if keys:
            more = f" and {len(keys) - 3} more" if len(keys) > 3 else ""
            raise ValueError(
                f"{name}: the checkpoint {problem} {', '.join(keys[:3])}{more}; expected {len(expected)} tensors"
            )
    network.load_state_dict(dict(state))
