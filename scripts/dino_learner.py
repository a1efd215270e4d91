"""A small DINO and what it learns from: set losses on the encoder's boxes and on every decoder layer, and denoising."""

import torch
from learner import RARE, Denoiser, query_mask, set_losses
from refinebox.adapters.dino import AUTHORS, Dino
from refinebox.adapters.parts import proposals
from refinebox.adapters.parts.backbone import ResNetSizes
from refinebox.adapters.parts.deformable_attention import DeformableAttention, MultiLevelMemory
from refinebox.adapters.parts.deformable_sizes import DeformableSizes
from torch import Tensor, nn

from refinebox.data.batches import Batch

HEADS, LEVELS, POINTS = 8, 4, 4


def new_dino(classes: int, queries: int, backbone: ResNetSizes) -> Dino:
    """A small DINO with fresh weights."""
    sizes = DeformableSizes(
        backbone,
        projected=LEVELS - 1,
        levels=LEVELS,
        bias=True,
        width=128,
        feedforward=256,
        encoder_layers=2,
        decoder_layers=3,
        samples=HEADS * LEVELS * POINTS,
        queries=queries,
        columns=classes,
        two_stage=True,
        shared=False,
    )
    network = Dino(sizes, heads=HEADS, norm=nn.BatchNorm2d, **AUTHORS)
    for parameter in network.transformer.parameters():
        if parameter.dim() > 1:
            nn.init.xavier_uniform_(parameter)
    nn.init.normal_(network.transformer.level_embed)
    nn.init.normal_(network.transformer.tgt_embed.weight)
    for module in network.modules():
        if isinstance(module, DeformableAttention):
            look_around(module)
    for head, box_head in zip(network.class_embed, network.bbox_embed, strict=True):
        nn.init.constant_(head.bias, RARE)
        nn.init.zeros_(box_head.layers[-1].weight)
        nn.init.zeros_(box_head.layers[-1].bias)
    return network


def look_around(module: DeformableAttention) -> None:
    """Every head looks in a direction of its own, each point one cell farther (Deformable DETR, appendix A.3)."""
    nn.init.zeros_(module.sampling_offsets.weight)
    nn.init.zeros_(module.attention_weights.weight)
    nn.init.zeros_(module.attention_weights.bias)
    angle = torch.arange(module.heads) * (2 * torch.pi / module.heads)
    direction = torch.stack([angle.cos(), angle.sin()], -1)
    direction = direction / direction.abs().amax(-1, keepdim=True)  # [heads, 2]
    steps = torch.arange(1, module.points + 1)[:, None]
    offsets = direction[:, None, None] * steps  # [heads, 1, points, 2]
    with torch.no_grad():
        module.sampling_offsets.bias.copy_(offsets.expand(-1, module.levels, -1, -1).flatten())


class DinoLearner(nn.Module):
    """The network, and beside it the label embedding that denoising needs."""

    def __init__(self, network: Dino) -> None:
        super().__init__()
        self.network = network
        head = network.class_embed[0]
        self.denoiser = Denoiser(head.out_features, head.in_features)

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """The losses of one batch, already weighted; their sum is minimised."""
        _, memory = self.network.encode(batch.images, batch.sizes)
        objects = max(1, sum(len(target.boxes) for target in batch.targets))
        losses = self.encoder_losses(memory, batch, objects)
        content, boxes = self.network.queries(memory)
        noisy = self.denoiser.queries(batch.targets)
        count = noisy.boxes.shape[1]
        mask = query_mask(count, content.shape[1], boxes.device)
        layers = self.network.decode(
            memory, torch.cat([noisy.content, content], 1), torch.cat([noisy.boxes, boxes], 1), mask
        )
        outputs = [self.network.heads(index, *layer) for index, layer in enumerate(layers)]
        logits = torch.cat([logits for logits, _ in outputs])  # [L * B, N, K]
        found = torch.cat([found for _, found in outputs])  # [L * B, N, 4]
        losses |= set_losses(logits[:, count:], found[:, count:], batch.targets * len(outputs), objects)
        return losses | self.denoiser.losses(logits[:, :count], found[:, :count], noisy, len(outputs))

    def encoder_losses(self, memory: MultiLevelMemory, batch: Batch, objects: int) -> dict[str, Tensor]:
        """Set losses of the tokens that become queries."""
        logits, boxes = self.network.proposed(memory)
        index = proposals.best(logits.amax(-1), self.network.count)
        losses = set_losses(
            proposals.rows(logits, index), proposals.rows(boxes, index).sigmoid(), batch.targets, objects
        )
        return {f"encoder_{name}": loss for name, loss in losses.items()}
