"""What a detector says about a batch, and what was found in an image.

Letters in shape comments: B images, Q queries, K categories, C channels, H and W pixels or cells.
"""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class DetectorOutput:
    """What a detector says about a padded batch.

    Attributes:
        features: backbone maps, fine to coarse, each ``[B, C_l, H_l, W_l]``.
        boxes: ``[B, Q, 4]`` cxcywh, fractions of the unpadded image.
        logits: ``[B, Q, K]``, or ``[B, Q, K + 1]`` with no-object last, raw; minus infinity where a row is not used.
        rescored: ``[B, Q, K]`` probabilities that stand for those of the logits, where something knows better.
        images: ``[B, 3, H, W]`` what the detector saw, normalised and padded; :class:`Detector` adds it.
    """

    features: tuple[Tensor, ...]
    boxes: Tensor
    logits: Tensor
    rescored: Tensor | None = None
    images: Tensor | None = None


@dataclass(frozen=True)
class Detections:
    """What was found in one image.

    Attributes:
        boxes: ``[N, 4]`` xyxy, pixels of the original image, which they may pass.
        scores: ``[N]`` between 0 and 1.
        labels: ``[N]`` category ids.
        queries: ``[N]`` int64, the query that each comes from, by which before and after can be paired.
    """

    boxes: Tensor
    scores: Tensor
    labels: Tensor
    queries: Tensor | None = None
