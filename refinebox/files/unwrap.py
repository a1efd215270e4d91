"""From what training programs save to the tensors of the model: out of dictionaries, and out of wrapped names."""

import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

# where programs put the model's weights and their moving average, likeliest first
RAW = ("model", "state_dict", "model_state_dict", "model_state", "net", "network", "detector", "module", "weights")
EMA = ("ema", "model_ema", "ema_model", "ema_state_dict", "model_ema_state_dict", "state_dict_ema", "ema_params")
NEVER = re.compile(r"optim|sched|scaler|callback|loops|rng|criterion|hyper|args|config|meta")
COUNTERS = ("n_averaged", "updates", "num_updates", "decay", "initted", "step")
WRAPPERS = ("module", "net", "network", "detector", *EMA)
# beginnings of a whole detector's names, by which "model." is a wrapper and not the body of transformers' own
WHOLE = (
    *("backbone.0.", "transformer.", "class_embed.", "bbox_embed.", "label_enc.", "refpoint_embed.", "query_embed."),
    *("model.", "class_labels_classifier.", "bbox_predictor.", "decoder.dec_score_head.", "decoder.dec_bbox_head."),
    *("neck.", "head.", "bbox_head.", "rpn.", "rpn_head.", "roi_head.", "roi_heads.", "proposal_generator."),
)

State = dict[str, Tensor]


def model_in(content: Any, ema: bool | None = None) -> tuple[State, str | None]:
    """The model's tensors in a checkpoint, by plain names; and which were taken where there are two sets of them.

    Args:
        content: what the file holds: tensors or numpy arrays by name, at the top or under one of the usual keys.
        ema: whether to take the moving average of the weights; by default where there is one.

    Raises:
        ValueError: there are no tensors, or not those that were asked for.
    """
    found = {name: plain(state) for name, state in states(content).items()}
    if not found:
        raise ValueError(
            "holds no tensors by name, neither at the top nor under 'model' or another of the usual keys"
            f"{listed(content)}; expected a state dict"
        )
    wanted = "ema" if ema or (ema is None and "ema" in found) else "raw"
    if wanted not in found:
        missing = "no moving average of the weights" if ema else "nothing but a moving average of the weights"
        raise ValueError(f"holds {missing}; leave out {'--ema' if ema else '--no-ema'}")
    average = "the moving average of the weights (ema); --no-ema takes the others"
    told = average if wanted == "ema" else "the weights as trained; --ema takes their moving average"
    return found[wanted], told if len(found) > 1 else None


def states(content: Any) -> dict[str, State]:
    """The sets of tensors in a checkpoint, still wrapped: ``raw``, ``ema`` or both."""
    if not isinstance(content, Mapping):
        return {}
    found = {}
    for name, keys in (("raw", RAW), ("ema", EMA)):
        for key in keys:
            inner = states(content.get(key))
            if inner and name not in found:
                found[name] = inner.get(name) or inner.get("raw") or inner["ema"]
            if name == "raw" and "ema" in inner:
                found.setdefault("ema", inner["ema"])
    if found:
        return found
    flat = {key: tensor for key, value in content.items() if (tensor := as_tensor(value)) is not None}
    flat = {str(key): tensor for key, tensor in flat.items() if isinstance(key, str) and key not in COUNTERS}
    flat = {key: tensor for key, tensor in flat.items() if "." in key or not NEVER.search(key.casefold())}
    averaged = {key: tensor for key, tensor in flat.items() if key.partition(".")[0] in EMA}
    if averaged and len(averaged) < len(flat):
        return {"raw": {key: tensor for key, tensor in flat.items() if key not in averaged}, "ema": averaged}
    if any("." in key for key in flat):
        return {"raw": flat}
    others = [states(value) for key, value in content.items() if not NEVER.search(str(key).casefold())]
    others = [inner for inner in others if inner]
    if len(others) == 1:
        return others[0]
    return {"raw": flat} if flat and not others else {}


def as_tensor(value: Any) -> Tensor | None:
    """A tensor, also of a numpy array of numbers."""
    if isinstance(value, Tensor):
        return value
    return torch.from_numpy(value.copy()) if isinstance(value, np.ndarray) and value.dtype.kind in "fiub" else None


def plain(state: State) -> State:
    """Without what wraps a whole model: compilation, distributed training, a program's ``self.model``, an average."""
    state = {key.replace("_orig_mod.", ""): tensor for key, tensor in state.items()}
    while True:
        kept = {key for key in state if not NEVER.search(key.partition(".")[0]) and "." in key}
        heads = {key.partition(".")[0] for key in kept}
        head = next(iter(heads)) if len(heads) == 1 else ""
        inside = {key.removeprefix(f"{head}."): tensor for key, tensor in state.items()}
        whole = head == "model" and any(key.startswith((*WHOLE, *(f"{name}." for name in WRAPPERS))) for key in inside)
        if not (head in WRAPPERS or whole) or len(inside) < len(state):
            return {key: tensor for key, tensor in state.items() if key.rpartition(".")[2] not in COUNTERS[:3]}
        state = inside


def listed(content: Any) -> str:
    """What a checkpoint holds instead, for a message."""
    if not isinstance(content, Mapping):
        return f" (it is a {type(content).__name__})"
    return f" (it has {', '.join(map(str, list(content)[:5]))})" if content else " (it is empty)"
