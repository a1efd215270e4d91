"""Small models of transformers that are told in words what to look for, with random weights and small tokenizers."""

from collections.abc import Callable
from typing import Any

import torch
import transformers as library
from transformers_models import LAYERS, STAGES

WORDS = ("cat", "dog", "traffic", "light", "cats", "object", "a", "b", ",", "detect")
QUERIES = 20


def swin() -> Any:
    return library.SwinConfig(
        embed_dim=16, depths=[1, 1, 1, 1], num_heads=[1, 2, 2, 2], window_size=4, out_features=STAGES
    )


def bert() -> Any:
    """A tokenizer whose special tokens have the numbers that Grounding DINO looks for."""
    special = {0: "[PAD]", 100: "[UNK]", 101: "[CLS]", 102: "[SEP]", 103: "[MASK]", 1012: ".", 1029: "?"}
    words = special | {500 + number: word for number, word in enumerate(WORDS)}
    return library.BertTokenizer(vocab={words.get(number, f"[unused{number}]"): number for number in range(1030)})


def clip() -> Any:
    """A tokenizer that knows letters alone."""
    letters = [*"abcdefghijklmnopqrstuvwxyz,."]
    vocabulary = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    return library.CLIPTokenizer(vocab={token: number for number, token in enumerate(vocabulary)}, merges=[])


def grounding_dino(name: str) -> Any:
    text = library.BertConfig(
        vocab_size=1030, hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32
    )
    config = getattr(library, f"{name}Config")(
        backbone_config=swin(), text_config=text, d_model=32, num_queries=QUERIES, max_text_len=32, **LAYERS
    )
    return getattr(library, f"{name}ForObjectDetection")(config)


def omdet_turbo() -> Any:
    text = library.CLIPTextConfig(
        vocab_size=58,
        hidden_size=64,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        projection_dim=64,
        eos_token_id=57,
        bos_token_id=56,
        pad_token_id=57,
    )
    config = library.OmDetTurboConfig(
        backbone_config=swin(),
        text_config=text,
        apply_layernorm_after_vision_backbone=False,
        text_projection_in_dim=64,
        text_projection_out_dim=64,
        task_encoder_hidden_dim=32,
        class_embed_dim=64,
        num_queries=QUERIES,
        encoder_hidden_dim=32,
        vision_features_channels=[32, 32, 32],
        encoder_in_channels=[32, 64, 128],
        encoder_dim_feedforward=32,
        encoder_attention_heads=4,
        decoder_hidden_dim=32,
        decoder_num_heads=4,
        decoder_num_layers=2,
        decoder_dim_feedforward=32,
        image_size=128,
        cache_size=2,
    )
    return library.OmDetTurboForObjectDetection(config)


def dino_processor() -> Any:
    images = library.GroundingDinoImageProcessor(size={"shortest_edge": 96, "longest_edge": 144})
    return library.GroundingDinoProcessor(images, bert())


def omdet_processor() -> Any:
    images = library.DetrImageProcessor(size={"height": 128, "width": 128}, do_pad=False)
    return library.OmDetTurboProcessor(images, clip())


FAMILIES: dict[str, tuple[Callable[[], Any], Callable[[], Any]]] = {
    "grounding-dino": (lambda: grounding_dino("GroundingDino"), dino_processor),
    "mm-grounding-dino": (lambda: grounding_dino("MMGroundingDino"), dino_processor),
    "omdet-turbo": (omdet_turbo, omdet_processor),
}


def build(family: str) -> tuple[Any, Any]:
    """The model and the processor of a family, with weights that let queries and phrases differ."""
    torch.manual_seed(0)
    network, processor = (part() for part in FAMILIES[family])
    for tensor in network.eval().state_dict().values():
        if tensor.is_floating_point() and tensor.dim() > 1 and tensor.abs().max() == 0:
            torch.nn.init.normal_(tensor, std=0.3)
    return network, processor
