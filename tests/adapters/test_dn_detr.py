"""What DN-DETR has beside DAB-DETR: contents that start from the label "unknown"."""

from dataclasses import replace

import torch
from refinebox.adapters.dab_detr import DabDetr
from refinebox.adapters.dn_detr import DnDetr
from refinebox.adapters.parts.sizes import Sizes
from torch import Tensor

from refinebox.detection.output import DetectorOutput

IMAGES, SIZES = torch.linspace(-2, 2, 3 * 64 * 80).view(1, 3, 64, 80), torch.tensor([[64, 80]])


def run(network: DabDetr) -> DetectorOutput:
    with torch.no_grad():
        return network.train(False)(IMAGES, SIZES)  # type: ignore[no-any-return]


def network(sizes: Sizes) -> DnDetr:
    torch.manual_seed(0)
    return DnDetr(sizes)


def test_queries_hold_the_label_unknown_and_no_indicator(tiny: Sizes) -> None:
    denoising = network(tiny)
    content, anchors = denoising.queries(2)
    assert content.shape == (2, 12, 32)
    assert torch.equal(content[1, 5, :31], denoising.label_enc.weight[6])  # after categories 0 to 5
    assert content[..., 31].abs().max() == 0
    assert torch.equal(anchors[1], denoising.refpoint_embed.weight.sigmoid())


def test_patterns_add_to_the_label(tiny: Sizes) -> None:
    denoising = network(replace(tiny, patterns=3))
    content, _ = denoising.queries(1)
    label = torch.cat([denoising.label_enc.weight[-1], torch.zeros(1)])
    wanted = denoising.get_parameter("transformer.patterns.weight").repeat_interleave(12, dim=0) + label
    assert torch.equal(content[0], wanted)


def test_a_label_of_zeros_makes_it_dab_detr(tiny: Sizes) -> None:
    denoising, plain = network(tiny), DabDetr(tiny)
    plain.load_state_dict({key: x for key, x in denoising.state_dict().items() if key != "label_enc.weight"})
    wanted = run(plain)
    assert (run(denoising).logits - wanted.logits).abs().max() > 1e-3
    with torch.no_grad():
        denoising.label_enc.weight[-1].zero_()
    assert torch.equal(run(denoising).logits, wanted.logits)
    assert torch.equal(run(denoising).boxes, wanted.boxes)


def test_labels_of_categories_play_no_part(tiny: Sizes) -> None:
    denoising = network(tiny)
    wanted: Tensor = run(denoising).logits
    with torch.no_grad():
        denoising.label_enc.weight[:-1].fill_(7)
    assert torch.equal(run(denoising).logits, wanted)
