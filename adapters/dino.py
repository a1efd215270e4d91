"""DINO (arXiv 2203.03605): queries start as the encoder's best boxes, with contents of their own."""

from collections.abc import Mapping
from typing import Any

from refinebox.adapters.parts import proposals
from refinebox.adapters.parts.deformable_attention import MultiLevelMemory
from refinebox.adapters.parts.deformable_network import DeformableNetwork, frozen_deformable, moved, on_levels
from refinebox.adapters.parts.deformable_sizes import DeformableSizes
from refinebox.adapters.parts.position import anchor_embedding
from refinebox.adapters.parts.transformer import MLP
from torch import Tensor, nn

from refinebox.detection.detector import Detector
from refinebox.detection.output import DetectorOutput
from refinebox.detection.profile import Profile

AUTHORS = {"temperature": 20.0, "offset": 0.0, "epsilon": 1e-3, "output_epsilon": 1e-3}
# the same tensors were trained with other constants elsewhere; mmdetection's "improved" model has its own, by name
CONSTANTS: dict[str, Mapping[str, float]] = {
    "authors": AUTHORS,
    "detrex": {**AUTHORS, "temperature": 10000.0, "offset": -0.5},
    "mmdet3": {**AUTHORS, "output_epsilon": 1e-5},
}


class Dino(DeformableNetwork):
    """The network (section 3).

    Args:
        sizes: what the tensors tell.
        contents: the name that the checkpoint has for the learned contents of the queries.
        options: of :class:`refinebox.adapters.parts.deformable_network.DeformableNetwork`.
    """

    def __init__(self, sizes: DeformableSizes, *, contents: str = "tgt_embed", **options: Any) -> None:
        super().__init__(sizes, **options)
        width = sizes.width
        decoder = self.transformer.decoder
        decoder.norm = nn.LayerNorm(width)
        decoder.ref_point_head = MLP(2 * width, width, width, depth=2)
        self.contents = contents
        if sizes.queries:
            self.transformer.add_module(contents, nn.Embedding(sizes.queries, width))

    def predict(self, images: Tensor, sizes: Tensor) -> DetectorOutput:
        features, memory = self.encode(images, sizes)
        content, boxes = self.queries(memory)
        hidden, reference = self.decode(memory, content, boxes)[-1]
        logits, boxes = self.heads(self.layers - 1, hidden, reference)
        return DetectorOutput(features, boxes, logits)

    def queries(self, memory: MultiLevelMemory) -> tuple[Tensor, Tensor]:
        """Contents ``[B, Q, C]`` and boxes ``[B, Q, 4]`` that the decoder starts from (mixed selection, section 3.4).

        Boxes are the encoder's best, best first; contents are learned, one for each rank.
        """
        contents = self.transformer.get_submodule(self.contents).weight
        logits, boxes = self.proposed(memory)
        index = proposals.best(logits.amax(-1), len(contents))
        # an image of few tokens has fewer boxes than there are contents
        content = contents[: index.shape[1]].expand(index.shape[0], -1, -1)
        return content, proposals.rows(boxes, index).sigmoid().detach()

    def decode(
        self, memory: MultiLevelMemory, content: Tensor, boxes: Tensor, mask: Tensor | None = None
    ) -> list[tuple[Tensor, Tensor]]:
        """For each layer, its normalised output ``[B, N, C]`` and the boxes ``[B, N, 4]`` that entered it.

        ``mask`` is bool, ``[N, N]``, True where a query may look at another.
        """
        outputs = []
        for index, layer in enumerate(self.transformer.decoder.layers):
            content = layer(content, self.position(boxes, memory), on_levels(boxes, memory), memory, mask)
            outputs.append((self.transformer.decoder.norm(content), boxes))
            # boxes move by the raw output, predictions are made from the normalised one
            boxes = moved(self.bbox_embed[index](content), boxes, self.epsilon).detach()
        return outputs

    def position(self, boxes: Tensor, memory: MultiLevelMemory) -> Tensor:
        """``[B, N, C]`` positions of queries, from their boxes as fractions of the padded finest level."""
        seen = boxes * memory.valid_ratios[:, :1].repeat(1, 1, 2)
        embedded: Tensor = self.transformer.decoder.ref_point_head(
            anchor_embedding(seen, self.transformer.level_embed.shape[-1])
        )
        return embedded


def build(state: Mapping[str, Tensor], profile: Profile) -> Detector:
    """The frozen detector for a state dict in the authors' layout; errors are those of ``frozen_deformable``."""
    return frozen_deformable(Dino, state, profile, CONSTANTS.get(profile.layout, AUTHORS))
