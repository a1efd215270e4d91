"""The contract of a detector as a ready test: what train, oracle-analysis, apply, eval and predict rely on."""

from collections.abc import Callable

import torch
from PIL import Image
from torch import Tensor
from torchvision.ops import clip_boxes_to_image

from refinebox.boxes import to_pixels
from refinebox.data.input_format import InputFormat, pad
from refinebox.data.proposals import Proposals
from refinebox.detection.detector import Detector
from refinebox.detection.output import DetectorOutput

TOLERANCE = 0.05  # of box coordinates, as fractions of the image: padding shifts them a little, a wrong frame by far


def check_detector(detector: Detector, *, height: int = 192, width: int = 256) -> None:
    """Runs every check of the contract on random images of about this size, in pixels, or of the detector's own.

    Padding may change boxes and scores a little, as convolutions look over the border; a detector trained at one size
    that cannot bear padding fails and must be used with images of that size. One that takes proposals gets random ones.

    Raises:
        AssertionError: a check fails; the message says what came and what was expected.
    """
    device = next(detector.parameters()).device
    large, small = random_images(detector.profile.input, height, width)
    images, sizes = (tensor.to(device) for tensor in pad([large, small], detector.profile.input))
    proposals = taken(detector, images, sizes)

    def run() -> DetectorOutput:
        output: DetectorOutput = detector(images, sizes, proposals)
        return output

    output = run()
    check_frozen(detector, run)
    check_shapes(detector, output, images)
    check_values(detector, output)
    check_repeatable(output, run(), "a second run on the same batch")
    check_features(detector, output, detector.features(images, sizes))
    check_format(detector)
    if proposals is None:
        check_padding(detector, output, small.to(device))
    else:
        check_proposals(detector, output, proposals)
    check_detections(detector, output, sizes)
    check_choice(detector, output, sizes)


def random_images(form: InputFormat, height: int, width: int) -> tuple[Tensor, Tensor]:
    """Two images ``[3, H, W]`` as the detector takes them; the second is smaller where it takes any size."""
    generator = torch.Generator().manual_seed(0)
    shapes = [(height, width), (round(0.7 * height), round(0.6 * width))]
    if form.fixed:
        shapes = [form.content(*shape) for shape in shapes]
    shapes = [tuple(side - side % form.step for side in shape) for shape in shapes]  # type: ignore[misc]
    large, small = (torch.randn(3, *shape, generator=generator) for shape in shapes)
    return large, small


def taken(detector: Detector, images: Tensor, sizes: Tensor) -> Proposals | None:
    """Random proposals for a detector that takes some, with a row that is not used; None for one that finds its own."""
    generator = torch.Generator().manual_seed(1)
    boxes = 0.2 + 0.6 * torch.rand(len(images), 5, 4, generator=generator)
    scores = torch.rand(len(images), 5, len(detector.category_ids), generator=generator)
    scores[:, -1] = 0
    proposals = Proposals(boxes, scores).to(images.device)
    try:
        detector(images, sizes, proposals)
    except ValueError:
        return None
    return proposals


def check_frozen(detector: Detector, run: Callable[[], DetectorOutput]) -> None:
    """Nothing can train the detector, and running it changes none of its tensors."""
    _expect(isinstance(detector, Detector), f"got a {type(detector).__name__}, expected a refinebox.Detector")
    trainable = [name for name, parameter in detector.named_parameters() if parameter.requires_grad]
    _expect(not trainable, f"{len(trainable)} parameters can be trained ({trainable[:3]}); call freeze() in __init__")
    detector.train()
    training = [name or "itself" for name, module in detector.named_modules() if module.training]
    _expect(not training, f"train() switched {training[:3]} to training mode; do not override train()")
    before = {name: tensor.clone() for name, tensor in detector.state_dict().items()}
    output = run()
    changed = [name for name, tensor in detector.state_dict().items() if not torch.equal(tensor, before[name])]
    _expect(not changed, f"a forward pass changed {changed[:3]}; expected none of the tensors to change")
    with_gradient = [tensor for tensor in _tensors(output) if tensor.requires_grad]
    _expect(not with_gradient, "the output carries gradients; override detect(), not forward()")


def check_shapes(detector: Detector, output: DetectorOutput, images: Tensor) -> None:
    """Features, boxes and logits have the shapes that the detector announces."""
    batch = len(images)
    channels = tuple(feature.shape[1] for feature in output.features)
    _expect(channels == detector.channels, f"features have {channels} channels, announced are {detector.channels}")
    _expect(
        list(detector.strides) == sorted(detector.strides), f"strides are {detector.strides}, expected fine to coarse"
    )
    for feature, stride in zip(output.features, detector.strides, strict=True):
        expected = tuple(-(-side // stride) for side in images.shape[-2:])
        found = tuple(feature.shape[-2:])
        fits = all(abs(a - b) <= 1 for a, b in zip(found, expected, strict=True))
        _expect(fits, f"the map of stride {stride} has {found} cells, expected about {expected}")
    queries = output.boxes.shape[1]
    _expect(
        output.boxes.shape == (batch, queries, 4), f"boxes are {tuple(output.boxes.shape)}, expected [{batch}, Q, 4]"
    )
    no_object = detector.profile.classification == "softmax"
    columns = len(detector.category_ids) + no_object
    _expect(
        output.logits.shape == (batch, queries, columns),
        f"logits are {tuple(output.logits.shape)}, expected {(batch, queries, columns)}: one column for each of the "
        f"{len(detector.category_ids)} category ids{', then no-object' if no_object else ''}",
    )


def check_features(detector: Detector, output: DetectorOutput, features: tuple[Tensor, ...]) -> None:
    """The backbone alone gives the maps that come with the boxes; a cached training relies on it."""
    same = len(features) == len(output.features) and all(map(torch.equal, features, output.features))
    _expect(
        same, "features() gives other maps than the detector's output has; extract() must return what detect() does"
    )


def check_values(detector: Detector, output: DetectorOutput) -> None:
    """Everything is finite float32, boxes are fractions and scores are probabilities without no-object."""
    for name, tensor in (("features", output.features[0]), ("boxes", output.boxes), ("logits", output.logits)):
        _expect(tensor.dtype == torch.float32, f"{name} are {tensor.dtype}, expected torch.float32")
    # a query with logits of minus infinity is one that is not used
    finite = [*output.features, output.boxes, output.logits[output.logits != -torch.inf]]
    _expect(all(bool(tensor.isfinite().all()) for tensor in finite), "the output is not finite everywhere")
    low, high = output.boxes.min().item(), output.boxes.max().item()
    _expect(
        low >= -1 and high <= 2,
        f"boxes lie between {low:.3g} and {high:.3g}, expected cxcywh as fractions of the image",
    )
    scores = detector.scores(output.logits)
    expected = (*output.logits.shape[:2], len(detector.category_ids))
    _expect(scores.shape == expected, f"scores are {tuple(scores.shape)}, expected {expected}: no-object left out")
    _expect(bool(((scores >= 0) & (scores <= 1)).all()), "scores leave 0 to 1; scores() must return probabilities")


def check_repeatable(output: DetectorOutput, again: DetectorOutput, what: str) -> None:
    """Two runs give the same bits."""
    same = all(torch.equal(a, b) for a, b in zip(_tensors(output), _tensors(again), strict=True))
    _expect(same, f"{what} gave another output; is dropout active, or something drawn at random?")


def check_padding(detector: Detector, output: DetectorOutput, image: Tensor) -> None:
    """The second image of the batch, which is padded there, gives nearly the same boxes alone."""
    alone = detector(*(tensor.to(image.device) for tensor in pad([image])))
    scores, others = (detector.scores(logits) for logits in (alone.logits[0], output.logits[1]))  # [Q, K]
    used, there = scores.amax(-1) > 0, others.amax(-1) > 0
    if not (used.any() and there.any()):
        return  # a detector may find nothing in noise
    boxes, padded = alone.boxes[0][used], output.boxes[1][there]
    # candidates and queries that are chosen by score may trade places: the nearest box counts, or the nearest in all
    distance = torch.cdist(boxes, padded, p=1)
    if detector.profile.final.rule != "suppression":
        distance += torch.cdist(scores[used], others[there], p=1)
    same = distance.argmin(1)
    difference = (boxes - padded[same]).abs().median().item()
    _expect(
        difference <= TOLERANCE,
        f"boxes move by {difference:.3f} (median, fractions of the image) when the image is padded, expected at most "
        f"{TOLERANCE}: are they fractions of the image without padding, and is the padding masked?",
    )


def check_detections(detector: Detector, output: DetectorOutput, sizes: Tensor) -> None:
    """Detections are in pixels of the original image, and their labels are category ids."""
    scores = detector.scores(output.logits)
    first, second = (detector.postprocess(scores, output.boxes, factor * sizes)[0] for factor in (1, 2))
    same = torch.allclose(2 * first.boxes, second.boxes, rtol=1e-3, atol=0.1)
    _expect(same, "boxes do not double with the size of the original image; expected xyxy in its pixels")
    unknown = sorted(set(first.labels.tolist()) - set(detector.category_ids))
    _expect(not unknown, f"labels {unknown[:3]} are no category ids, known are {detector.category_ids[:5]}...")


def check_format(detector: Detector) -> None:
    """A picture comes in as the input format says, and a batch is as large as the detector wants it."""
    form = detector.profile.input
    picture = Image.new("RGB", (90, 60), (200, 100, 50))
    image, content = detector.preprocess(picture), form.content(picture.height, picture.width)
    _expect(
        image.shape == (3, *content) and image.dtype == torch.float32,
        f"preprocess() makes {image.dtype} {tuple(image.shape)} of a picture, expected torch.float32 {(3, *content)}",
    )
    batch, sizes = form.pad([image])
    canvas = form.canvas(*content)
    _expect(
        tuple(batch.shape[-2:]) == canvas and sizes.tolist() == [list(content)],
        f"a batch has {tuple(batch.shape[-2:])} pixels, expected {canvas}",
    )
    outside = batch[..., content[0] :, :].abs().sum() + batch[..., content[1] :].abs().sum()
    _expect(float(outside) == 0, "a batch is not zero around its images; the detector may fill its padding itself")


def check_proposals(detector: Detector, output: DetectorOutput, proposals: Proposals) -> None:
    """Boxes and scores that the detector was given keep their places, and rows that are not used stay so."""
    rows, expected = output.boxes.shape[:2], proposals.boxes.shape[:2]
    _expect(rows == expected, f"{tuple(rows)} boxes come out, expected the {tuple(expected)} that went in")
    scores = detector.scores(output.logits)
    same = torch.allclose(scores, proposals.scores, atol=1e-4)
    _expect(same, "scores are not those that the detector was given; expected the same in the same rows")


def check_choice(detector: Detector, output: DetectorOutput, sizes: Tensor) -> None:
    """A detection knows its query; unused rows give none; suppression looks at the boxes where they are in the end."""
    scores, rule = detector.scores(output.logits), detector.profile.final.rule
    chooser: Detector = getattr(detector, "detector", detector)  # a refined detector leaves the choice to its own
    before = detector.select(scores, output.boxes, sizes)
    moved = output.boxes.new_tensor([0.5, 0.5, 0.4, 0.4]).expand_as(output.boxes)
    after = detector.select(scores, moved, sizes)
    for index, (found, then) in enumerate(zip(before, after, strict=True)):
        if found.queries is None or then.queries is None:
            raise AssertionError("detections do not say their queries; select() must fill the field")
        size = sizes[index].tolist()
        boxes = to_pixels(output.boxes[index], sizes[index])[found.queries]
        # some cut them at the borders of the image before they choose
        here, there = (clip_boxes_to_image(each, size) for each in (found.boxes, boxes))
        _expect(torch.allclose(here, there, atol=0.01), "detections have other boxes than their queries")
        used = scores[index].amax(-1) > 0
        if not bool(used.all()):
            _expect(bool(used[found.queries].all()), "a row that is not used, with scores of 0, became a detection")
        if rule == "suppression":
            labels = then.labels.tolist()
            _expect(
                len(set(labels)) == len(labels),
                "boxes that were moved onto one another stay twice in a category; suppress them in select()",
            )
        elif type(chooser).select is Detector.select:  # others may soften scores as they like
            _expect(torch.equal(found.queries, then.queries), "other boxes lead to other detections; only scores may")


def _tensors(output: DetectorOutput) -> list[Tensor]:
    return [*output.features, output.boxes, output.logits]


def _expect(holds: bool, message: str) -> None:
    # raised rather than asserted, so that python -O checks as well
    if not holds:
        raise AssertionError(message)
