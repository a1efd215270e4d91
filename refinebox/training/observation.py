"""What the frozen detector saw in a batch, as far as training the refiner needs it."""

from dataclasses import dataclass

from torch import Tensor

from refinebox.boxes import paired_iou
from refinebox.data.batches import Batch
from refinebox.detection.detector import Detector
from refinebox.refinement.matching import match


@dataclass(frozen=True)
class Observation:
    """Features of a batch, and its matched boxes.

    Attributes:
        features: backbone maps, fine to coarse, each ``[B, C_l, H_l, W_l]``; before them the images, if they are read.
        boxes: ``[M, 4]`` predicted, cxcywh, fractions of the unpadded image.
        wanted: ``[M, 4]`` the objects' boxes they were matched with, in the same frame.
        image: ``[M]`` int64, which image of the batch each pair is from, in order.
        sizes: ``[B, 2]`` (height, width) of the images without padding, in pixels.
        image_ids: the annotation file's ids.
    """

    features: tuple[Tensor, ...]
    boxes: Tensor
    wanted: Tensor
    image: Tensor
    sizes: Tensor
    image_ids: list[int]

    def overlaps(self) -> Tensor:
        """``[M]`` IoU of each predicted box with its object."""
        return paired_iou(self.boxes, self.wanted)


def observe(detector: Detector, batch: Batch, *, pixels: bool = False) -> Observation:
    """Runs the detector and matches its queries with the objects, once for all steps of the refiner.

    With ``pixels`` the images are the first of the maps, for a refiner with a stem.

    Raises:
        FloatingPointError: a score or box is not finite.
    """
    output = detector(batch.images, batch.sizes, batch.proposals)
    matches = match(detector.scores(output.logits), output.boxes, batch.targets, detector.profile.classification)
    boxes = output.boxes[matches.image, matches.query]
    images = (output.images,) if pixels and output.images is not None else ()
    return Observation((*images, *output.features), boxes, matches.boxes, matches.image, batch.sizes, batch.image_ids)
