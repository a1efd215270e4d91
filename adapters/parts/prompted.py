"""Detectors of transformers that are told in words what to look for: Grounding DINO and its kin, OmDet-Turbo.

The words stay the same for all images, so each is read once: the phrases are the categories, and what the frozen text
encoder makes of them is kept. A file that refinebox writes holds the phrases and their tokens, not the tokenizer.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple, Self

import torch
from PIL import Image
from refinebox.adapters.parts.transformers_detector import TransformersDetector
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only
from torchvision.ops import clip_boxes_to_image

from refinebox.detection.output import Detections
from refinebox.detection.profile import Choice, Profile, ids_of

UNTOLD = ("object",)  # what a detector looks for before anybody says it: its feature maps are the same for any words
PARTING = (0, 101, 102, 1012, 1029)  # BERT's [PAD], [CLS], [SEP], point and question mark, which part phrases
Tokens = Mapping[str, list[list[int]] | list[int]]  # inputs of a network beside the image, by name


class Predicted(NamedTuple):
    """``[B, Q, K]`` logits, a column for each phrase, and ``[B, Q, 4]`` boxes."""

    logits: Tensor
    pred_boxes: Tensor


class Prompted(nn.Module):
    """A network that takes images and words, with words that stay the same: one that takes images.

    Args:
        network: the model of transformers.
        tokens: the words as it takes them, for one image.
    """

    def __init__(self, network: Any, tokens: Tokens) -> None:
        super().__init__()
        self.network, self.config = network.train(False), network.config
        self.inputs: tuple[str, ...] = ()
        self.tell(tokens)

    def tell(self, tokens: Tokens) -> None:
        """Other words from now on."""
        device = next(self.network.parameters()).device
        self.inputs = tuple(tokens)
        for name, values in tokens.items():
            self.register_buffer(name, torch.tensor(values, device=device), persistent=False)

    def words(self, images: Tensor) -> dict[str, Tensor]:
        """The words once for each image."""
        tokens = {name: self.get_buffer(name) for name in self.inputs}
        return {name: tensor.repeat(len(images), *[1] * (tensor.dim() - 1)) for name, tensor in tokens.items()}


class GroundingDino(Prompted):
    """All phrases are one text, and a query has a logit for each of its tokens; a phrase's is that of its best token.

    So a query's best phrase has the score that transformers' post-processing gives the query.
    """

    def __init__(self, network: Any, tokens: Tokens) -> None:
        super().__init__(network, tokens)
        encoder = network.model.text_backbone
        encoder.forward = self._encoded = Remembered(encoder.forward)

    def tell(self, tokens: Tokens) -> None:
        super().tell(tokens)
        self.places = places_of(self.get_buffer("input_ids")[0].tolist())
        if self.__dict__.get("_encoded"):
            self._encoded.known.clear()

    def forward(self, pixel_values: Tensor, pixel_mask: Tensor | None = None) -> Predicted:
        output = self.network(pixel_values=pixel_values, pixel_mask=pixel_mask, **self.words(pixel_values))
        best = [output.logits[..., places].amax(-1) for places in self.places]
        return Predicted(torch.stack(best, -1), output.pred_boxes)


class OmDetTurbo(Prompted):
    """Every phrase is a text of its own and has a logit; the library keeps what its text encoder makes of them.

    It does so here before the first image, since for a batch the encoder's last bits are others. The library leaves
    what it keeps on the device where it was made, beside which it cannot lay what is made on another.
    """

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        for each in (self.network.language_cache_class.cache, self.network.language_cache_prompt.cache):
            each.update({key: tree_map_only(Tensor, fn, value) for key, value in each.items()})
        return self

    def tell(self, tokens: Tokens) -> None:
        super().tell(tokens)
        cache = self.network.language_cache_class
        cache.capacity = max(cache.capacity, len(tokens["classes_input_ids"]))
        with torch.no_grad():
            self.network.get_language_embedding(**{name: self.get_buffer(name) for name in self.inputs})

    def forward(self, pixel_values: Tensor) -> Predicted:
        output = self.network(pixel_values=pixel_values, **self.words(pixel_values))
        return Predicted(output.decoder_class_logits, output.decoder_coord_logits)


NETWORKS: dict[str, type[Prompted]] = {
    "grounding-dino": GroundingDino,
    "mm-grounding-dino": GroundingDino,
    "omdet-turbo": OmDetTurbo,
}


class Remembered:
    """A frozen text encoder's ``forward``, which runs once for every number of images that words are repeated for."""

    def __init__(self, forward: Callable[..., Any]) -> None:
        self.forward = forward
        self.known: dict[Any, Any] = {}

    def __call__(self, input_ids: Tensor, *others: Any, **options: Any) -> Any:
        device = input_ids.device
        key = len(input_ids), device, torch.is_autocast_enabled(device.type)
        if key not in self.known:
            self.known[key] = self.forward(input_ids, *others, **options)
        return self.known[key]


def places_of(ids: Sequence[int]) -> list[list[int]]:
    """Where the tokens of each phrase stand in a text, which ``PARTING`` tokens part."""
    phrases: list[list[int]] = [[]]
    for place, token in enumerate(ids):
        if token not in PARTING:
            phrases[-1].append(place)
        elif phrases[-1]:
            phrases.append([])
    return [places for places in phrases if places]


class PromptedDetector(TransformersDetector):
    """The frozen detector around a model that takes words.

    Args:
        network: the model of transformers.
        profile: with the phrases and their tokens among its settings.
        encode: makes tokens of phrases; None where there is no tokenizer, and so no other prompt.
    """

    takes_text = True

    def __init__(self, network: Any, profile: Profile, encode: Callable[[Sequence[str]], Tokens] | None = None) -> None:
        kind = NETWORKS[network.config.model_type]
        super().__init__(kind(network, profile.settings["tokens"]), profile)
        self._encode = encode
        if not profile.settings["prompt"]:
            self.category_ids = ()  # those of the data, whose names are then the prompt

    def ask(self, phrases: Sequence[str], ids: Sequence[int] | None = None) -> None:
        told = self.profile.settings["prompt"]
        if self._encode is None and list(phrases) != told:
            raise ValueError(
                f"{self.profile.name} was written for the prompt '{'. '.join(told)}.', without the tokenizer; for "
                "another, name the folder that it was made from"
            )
        ids = tuple(ids or ids_of(phrases))
        names = dict(zip(ids, phrases, strict=True))
        settings = dict(self.profile.settings)
        if self._encode is not None:
            settings |= {"prompt": list(phrases), "tokens": self._encode(phrases)}
            self.network.tell(settings["tokens"])
        self.profile = replace(self.profile, category_ids=ids, category_names=names, settings=settings)
        self.category_ids, self.category_names = ids, names

    def name_categories(self, categories: Sequence[Mapping[str, Any]]) -> None:
        if categories and not self.category_ids:
            self.ask([category["name"] for category in categories], [category["id"] for category in categories])

    def select(self, scores: Tensor, boxes: Tensor, sizes: Tensor) -> list[Detections]:
        if not self.category_ids:
            raise ValueError(f"{self.profile.name} is told in words what to look for; pass --prompt 'cat. dog.'")
        return super().select(scores, boxes, sizes)

    def finish(self, detections: Detections, size: tuple[int, int]) -> Detections:
        if self.profile.final.rule != "suppression":
            return detections
        return replace(detections, boxes=clip_boxes_to_image(detections.boxes, size))

    def tensors(self) -> dict[str, Tensor]:
        return {name.removeprefix("network."): tensor for name, tensor in super().tensors().items()}


def encoder(processor: Any, config: Any) -> Callable[[Sequence[str]], Tokens]:
    """What makes tokens of phrases as the library's ``processor`` does."""

    def encode(phrases: Sequence[str]) -> Tokens:
        one_text = NETWORKS[config.model_type] is GroundingDino
        parted = next((phrase for phrase in phrases if set(phrase) & set(".?")), None)
        if one_text and parted is not None:
            raise ValueError(f"the phrase {parted!r} of the prompt holds a point or question mark, which part phrases")
        inputs = processor(images=Image.new("RGB", (32, 32)), text=[list(phrases)], return_tensors="pt")
        tokens: Tokens = {name: value.tolist() for name, value in inputs.items() if not name.startswith("pixel")}
        if one_text:
            check(tokens["input_ids"][0], phrases, config.max_text_len)  # type: ignore[arg-type]
        return tokens

    return encode


def check(ids: Sequence[int], phrases: Sequence[str], limit: int) -> None:
    """Raises ValueError where the tokens ``ids`` of a text are too many, or do not part as its ``phrases`` do."""
    if len(ids) > limit:
        raise ValueError(
            f"the prompt of {len(phrases)} phrases has {len(ids)} tokens, and this detector reads {limit}; name fewer"
        )
    found = len(places_of(ids))
    if found != len(phrases):
        raise ValueError(f"the tokenizer finds {found} phrases in the prompt's {len(phrases)}; write them in words")


def choice_of(config: Any) -> Choice:
    """The final choice of transformers' post-processing, without its threshold."""
    if config.model_type == "omdet-turbo":
        return Choice("suppression", config.num_queries, above=0.0, iou=0.5, candidates=config.num_queries)
    return Choice("queries")
