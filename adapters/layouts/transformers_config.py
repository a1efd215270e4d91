"""What the ``config.json`` beside a transformers checkpoint says that its tensors cannot."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from refinebox.adapters.layouts.preprocessing import Unsupported, input_format

from refinebox.detection.profile import Profile


def read(config: Mapping[str, Any], profile: Profile, preprocessor: Iterable[str] = ()) -> Profile:
    """``profile`` with the network's settings, the input size and the categories that ``config`` gives.

    Args:
        config: the contents of ``config.json`` and ``preprocessor_config.json`` together.
        profile: what the table of names says; the configuration goes first.
        preprocessor: the names of all settings in ``preprocessor_config.json``.

    Raises:
        ValueError: the model is of a kind that the adapters do not build, a setting cannot be done here, or the
            configuration is malformed.
    """
    kind = config.get("position_embedding_type", "sine")
    if kind != "sine":
        raise ValueError(f"{profile.name} has {kind} position embeddings, expected sine; this kind is not supported")
    try:
        profile = _read(config, profile)
        return replace(profile, input=input_format(config, profile.input, preprocessor))
    except Unsupported as error:
        raise ValueError(f"{profile.name}: {error}") from error
    except (TypeError, AttributeError, ValueError) as error:
        raise ValueError(f"the config.json of {profile.name} is malformed ({error}); download it again") from error


def _read(config: Mapping[str, Any], profile: Profile) -> Profile:
    settings = dict(profile.settings)
    if "encoder_attention_heads" in config:
        settings["heads"] = int(config["encoder_attention_heads"])
    if "temperature_height" in config:
        settings["temperature"] = float(config["temperature_height"])
    if "two_stage_num_proposals" in config:
        settings["queries"] = int(config["two_stage_num_proposals"])
    backbone = {**(config.get("backbone_kwargs") or {}), **(config.get("backbone_config") or {})}
    if config.get("dilation") or backbone.get("output_stride") == 16:
        settings["dilation"] = True
    names = {int(index): name for index, name in (config.get("id2label") or {}).items()}
    meant = {index: name for index, name in names.items() if name not in ("N/A", f"LABEL_{index}")}
    return replace(profile, settings=settings, category_names=meant)
