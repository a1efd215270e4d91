"""The frozen detector: the class that every adapter derives from.

Letters in shape comments: B images, Q queries, K categories, C channels, H and W pixels or cells.
"""

import math
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.ops import clip_boxes_to_image

from refinebox.boxes import to_pixels
from refinebox.data.annotations import CocoData
from refinebox.data.categories import COCO_NAMES
from refinebox.data.images import read_image
from refinebox.data.input_format import InputFormat
from refinebox.data.proposals import Found, Proposals
from refinebox.detection.choice import choose
from refinebox.detection.output import Detections, DetectorOutput
from refinebox.detection.profile import Precision, Profile
from refinebox.files import checkpoint


class Detector(nn.Module):
    """A detector that cannot be trained: always in eval mode, without gradients.

    An adapter implements :meth:`detect` and calls :meth:`freeze` when its network is in place. One that takes boxes
    instead of finding them implements :meth:`detect_given` and :meth:`proposals` as well.

    Attributes:
        profile: name, input size and further facts.
        strides, channels: of the feature maps, measured by one forward pass.
        candidates: how many boxes it predicts in an image at most.
        category_ids: category id of each score column.
        category_names: category id to name.
        precision: of matrix products and convolutions; ``bfloat16`` is faster on GPUs, and boxes stay float32.
        memory_format: of images and weights; channels last makes convolutions several times faster on CPUs, and
            changes the last bit of what comes out.
        probe_side: side of the black image that strides and channels are measured on, in pixels.
        takes_boxes: whether it takes boxes instead of finding its own.
        takes_text: whether it is told in words what to look for, so that its categories are whatever is asked for.
        obstacle: why it cannot be exported whole, in words; empty where nothing stands against it.
    """

    memory_format: torch.memory_format = torch.channels_last
    probe_side = 128
    takes_boxes = False
    takes_text = False
    obstacle = ""

    def __init__(self, profile: Profile) -> None:
        super().__init__()
        self.profile = profile
        self.strides: tuple[int, ...] = ()
        self.channels: tuple[int, ...] = ()
        self.candidates = 0
        self.category_ids = profile.category_ids
        self.category_names = dict(profile.category_names)
        self.precision: Precision = "float32"

    @abstractmethod
    def detect(self, images: Tensor, sizes: Tensor) -> DetectorOutput:
        """The network's output; see :meth:`forward`."""
        raise NotImplementedError

    def detect_given(self, images: Tensor, sizes: Tensor, proposals: Proposals) -> DetectorOutput:
        """As :meth:`detect`, with boxes and scores from elsewhere; only a detector that takes them has it.

        Raises:
            ValueError: the detector finds its own.
        """
        raise ValueError(f"{self.profile.name} finds its own boxes; expected no proposals")

    def proposals(self, data: CocoData, columns: Mapping[int, int]) -> Mapping[int, Found] | None:
        """By image id, the boxes that the detector takes in ``data``; None for one that finds its own.

        ``columns`` is the score column of each of the data's category ids.
        """
        return None

    def proposals_in(self, paths: Sequence[Path]) -> Sequence[Found | None]:
        """The boxes that the detector takes in each image file; None for one that finds its own.

        Whoever asks does so once for an image: they may be made anew each time.
        """
        return [None] * len(paths)

    def take(self, results: Path) -> None:
        """Names the results file whose boxes the detector takes; only one that takes any has it.

        Raises:
            ValueError: the detector finds its own.
        """
        raise ValueError(f"{self.profile.name} finds its own boxes; leave out the results file {results}")

    def ask(self, phrases: Sequence[str], ids: Sequence[int] | None = None) -> None:
        """Has the detector look for ``phrases``, which are its categories then; ``ids`` are theirs.

        Raises:
            ValueError: it is not told in words what to look for, or cannot read these.
        """
        raise ValueError(f"{self.profile.name} knows its categories and takes no prompt; leave it out")

    @torch.no_grad()
    def forward(self, images: Tensor, sizes: Tensor, proposals: Proposals | None = None) -> DetectorOutput:
        """Features, boxes and logits for a batch.

        Args:
            images: ``[B, 3, H, W]`` normalised, zero-padded right and bottom; where the detector wants more padding,
                it is added.
            sizes: ``[B, 2]`` int (height, width) without padding, in pixels.
            proposals: boxes from elsewhere, for a detector that takes them.
        """
        images = self.padded(images).contiguous(memory_format=self.memory_format)
        with self._autocast(images.device):
            output = self.detect(images, sizes) if proposals is None else self.detect_given(images, sizes, proposals)
        features, boxes, logits = tuple(map(_widened, output.features)), _widened(output.boxes), _widened(output.logits)
        return replace(output, features=features, boxes=boxes, logits=logits, images=images)

    @torch.no_grad()
    def features(self, images: Tensor, sizes: Tensor) -> tuple[Tensor, ...]:
        """The feature maps of :meth:`forward` alone."""
        images = self.padded(images).contiguous(memory_format=self.memory_format)
        with self._autocast(images.device):
            features = self.extract(images, sizes)
        return tuple(map(_widened, features))

    def extract(self, images: Tensor, sizes: Tensor) -> tuple[Tensor, ...]:
        """The features that :meth:`detect` returns; an adapter that can do so runs its backbone alone."""
        return self.detect(images, sizes).features

    def padded(self, images: Tensor) -> Tensor:
        """``[B, 3, H, W]`` with as much padding, right and bottom, as the detector wants."""
        height, width = self.profile.input.canvas(*images.shape[-2:])
        return F.pad(images, (0, width - images.shape[-1], 0, height - images.shape[-2]))

    def _autocast(self, device: torch.device) -> AbstractContextManager[Any]:
        return torch.autocast(device.type, torch.bfloat16) if self.precision == "bfloat16" else nullcontext()

    def train(self, mode: bool = True) -> Self:
        """Stays in eval mode whatever is asked."""
        return super().train(False)

    def freeze(self) -> None:
        """Switches gradients off and measures strides, channels, candidates and the number of categories."""
        self.requires_grad_(False)
        self.train(False)
        self.to(memory_format=self.memory_format)
        output = self.probe()
        width = self.probe_canvas()[1]
        self.strides = tuple(stride_of(width, feature.shape[-1]) for feature in output.features)
        self.channels = tuple(feature.shape[1] for feature in output.features)
        self.candidates = output.boxes.shape[1]
        columns = self.scores(output.logits).shape[-1]
        if not self.category_ids:
            self.category_ids = tuple(range(columns))
            counted = self.profile.layout in ("detrex", "mmdet2", "mmdet3")
            if columns == len(COCO_NAMES) and counted and not self.category_names:
                self.category_ids = tuple(COCO_NAMES)  # detectron2 and mmdetection count the categories that exist
            if self.category_ids[-1:] == (max(COCO_NAMES),) and not self.category_names:
                self.category_names = dict(COCO_NAMES)
        if len(self.category_ids) != columns:
            raise ValueError(
                f"{self.profile.name}: {len(self.category_ids)} category ids for {columns} score columns; "
                "the checkpoint's metadata is wrong"
            )

    def probe(self) -> DetectorOutput:
        """The output for one black image of ``probe_side`` pixels, or of the one size that the detector takes."""
        side = self.probe_side
        height, width = self.probe_canvas()
        sizes = torch.tensor([[height, width] if self.profile.input.fixed else [side, side]])
        output: DetectorOutput = self(torch.zeros(1, 3, height, width), sizes)
        return output

    def probe_canvas(self) -> tuple[int, int]:
        """(height, width) in pixels of the image that :meth:`probe` looks at."""
        side = 1 if self.profile.input.fixed else self.probe_side  # which may be more than a fixed size
        return self.profile.input.canvas(side, side)

    def resize(self, short_side: int | None, long_side: int | None) -> None:
        """Changes the input size that images are brought to; None leaves a side as it is.

        Raises:
            ValueError: the detector takes images of one size alone.
        """
        self.reformat(self.profile.input.resized(short_side, long_side))

    def reformat(self, form: InputFormat) -> None:
        """Changes how images come in."""
        self.profile = replace(self.profile, input=form)

    def name_categories(self, categories: Sequence[Mapping[str, Any]]) -> None:
        """Takes over ``id`` and ``name`` of each score column if the detector has no names; none leaves it as it is."""
        if categories and not self.category_names:
            self.category_ids = tuple(category["id"] for category in categories)
            self.category_names = {category["id"]: category["name"] for category in categories}

    def preprocess(self, image: Image.Image) -> Tensor:
        """``[3, H, W]`` the image in RGB, resized and normalised as the detector wants it."""
        return self.profile.input.preprocess(image)

    def tensors(self) -> dict[str, Tensor]:
        """The weights, named as the adapter's ``build`` reads them."""
        return {name.removeprefix("network."): tensor for name, tensor in self.state_dict().items()}

    def weights_sha256(self) -> str:
        """Hexadecimal SHA-256 of all tensors, by which a refiner knows its detector whatever file it came from."""
        return checkpoint.tensors_sha256(self.tensors())

    def scores(self, logits: Tensor) -> Tensor:
        """``[B, Q, K]`` probabilities of the categories; no-object is never among them."""
        if self.profile.classification == "softmax":
            return logits.softmax(-1)[..., :-1]
        return logits if self.profile.classification == "probability" else logits.sigmoid()

    def scores_of(self, output: DetectorOutput) -> Tensor:
        """``[B, Q, K]`` probabilities of the categories: what rescored them said, or else :meth:`scores`."""
        return self.scores(output.logits) if output.rescored is None else output.rescored

    def postprocess(self, scores: Tensor, boxes: Tensor, sizes: Tensor) -> list[Detections]:
        """The detections of each image: :meth:`select`, then :meth:`finish`; arguments as for :meth:`select`."""
        found = self.select(scores, boxes, sizes)
        return [self.finish(detections, size) for detections, size in zip(found, sizes.tolist(), strict=True)]

    def finish(self, detections: Detections, size: tuple[int, int]) -> Detections:
        """What the code returns that the detector comes from, for an image of ``size`` (height, width).

        detrex cuts boxes at the borders of the image and drops those with nothing left; others return what they have.
        """
        if self.profile.layout != "detrex":
            return detections
        boxes = clip_boxes_to_image(detections.boxes, size)
        kept = ((boxes[:, 2:] - boxes[:, :2]) > 0).all(-1)
        queries = None if detections.queries is None else detections.queries[kept]
        return Detections(boxes[kept], detections.scores[kept], detections.labels[kept], queries)

    def select(self, scores: Tensor, boxes: Tensor, sizes: Tensor) -> list[Detections]:
        """The detector's own choice of detections, with boxes in pixels of the original images.

        Where the choice does not suppress overlaps it depends on the scores alone: other boxes, the same rows.

        Args:
            scores: ``[B, Q, K]``.
            boxes: ``[B, Q, 4]`` cxcywh, fractions of the unpadded image.
            sizes: ``[B, 2]`` (height, width) of the original images, in pixels.
        """
        pixels = to_pixels(boxes, sizes)  # [B, Q, 4]
        ids = torch.tensor(self.category_ids, device=scores.device)
        detections = []
        for image_scores, image_boxes in zip(scores, pixels, strict=True):
            query, column, score, chosen = choose(self.profile.final, image_scores, image_boxes)
            detections.append(Detections(chosen, score, ids[column], query))
        return detections

    def predict(self, images: Sequence[str | Path | Image.Image]) -> list[Detections]:
        """Detections in image files or PIL images, one image at a time so that padding plays no part.

        Raises:
            ValueError: a file is not a readable image, or the detector takes boxes that nobody names for it; the
                message names it.
        """
        device = next(self.parameters()).device
        names = [Path("an image in memory") if isinstance(item, Image.Image) else Path(item) for item in images]
        detections = []
        for item, path, found in zip(images, names, self.proposals_in(names), strict=True):
            image = item.convert("RGB") if isinstance(item, Image.Image) else read_image(path)
            batch, sizes = self.profile.input.pad([self.preprocess(image)])
            given = None if found is None else found.within(image.height, image.width).to(device)
            output = self(batch.to(device), sizes.to(device), given)
            original = torch.tensor([[image.height, image.width]], device=device)
            detections += self.postprocess(self.scores_of(output), output.boxes, original)
        return detections


def stride_of(side: int, cells: int) -> int:
    """The stride of a map with ``cells`` cells over a side of so many pixels.

    The power of two that gives so many where there is one, as the last cell may reach over the border: 10 cells over
    300 pixels have stride 32, not 30. Otherwise the quotient, 14 for instance in a transformer with such patches.
    """
    ratio = side / cells
    power = 2 ** max(0, math.ceil(math.log2(ratio)))
    return power if -(-side // power) == cells else round(ratio)


def _widened(tensor: Tensor) -> Tensor:
    return tensor.float() if tensor.dtype == torch.bfloat16 else tensor
