"""Draws docs/before_after.jpg: photographs with their boxes before and after, from an upgraded checkpoint and its data.

Of the boxes that were loose (IoU of 0.5 to 0.75 with their object) those that moved most are enlarged, in the
photographs where they moved most: that they fit better now, or not, does not decide which are shown.

    python scripts/draw_before_after.py --model better.safetensors --data bccd --output docs/before_after.jpg
"""

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from torch import Tensor
from torchvision.ops import box_convert, box_iou

from refinebox.data import annotations, layout
from refinebox.data.annotations import CocoData, labelled_picture
from refinebox.detection.detector import Detector
from refinebox.refinement.upgraded import load
from refinebox.report.close_ups import Moved, most_moved, sheet
from refinebox.report.predictions import detect_image, moved, save_picture

NEAR, TIGHT = 0.5, 0.75  # IoU with its object, between which a box is loose


def main(
    model: Annotated[Path, typer.Option(help="What refinebox apply wrote.")],
    data: Annotated[Path, typer.Option(help="Folder in COCO's layout; its validation images are drawn.")],
    output: Path = Path("docs/before_after.jpg"),
    threshold: Annotated[float, typer.Option(help="Lowest score of a box.")] = 0.5,
    smallest: Annotated[float, typer.Option(help="Shorter side in pixels of a box that is enlarged.")] = 40,
    count: Annotated[int, typer.Option(help="Photographs.")] = 2,
) -> None:
    """Draws photographs with their boxes before and after, from an upgraded checkpoint and its data."""
    detector, validation = load(model), annotations.read(*layout.find(data, "val"))
    pairs = [compared(detector, validation, entry, threshold) for entry in validation.images]
    images = [enlargeable(found, before, after, smallest) for found, before, after in pairs]
    picture = sheet(most_moved(images, count))
    save_picture(picture, output)
    before, after = (torch.cat([pair[place] for pair in pairs]) for place in (1, 2))
    near = before >= NEAR
    print(
        f"wrote {output}, {picture.width} x {picture.height} pixels. Of {int(near.sum())} boxes near their "
        f"object in {len(pairs)} images {(after > before)[near].float().mean():.0%} are nearer now, and of the "
        f"{int(loose(before).sum())} loose ones (IoU of {NEAR} to {TIGHT}) "
        f"{(after > before)[loose(before)].float().mean():.0%}"
    )


def compared(model: Detector, data: CocoData, entry: dict[str, Any], threshold: float) -> tuple[Moved, Tensor, Tensor]:
    """All boxes of an image, and the IoU of each with its object, before and after, ``[N]``; 0 where it has none.

    The object is the nearest one of the category; where several boxes have the same, it is the best one's.
    """
    image = labelled_picture(data, entry)
    found = detect_image(model, image)
    here = [a for a in data.annotations if a["image_id"] == entry["id"] and not a["iscrowd"]]
    objects = torch.tensor([a["bbox"] for a in here], dtype=torch.float32).reshape(-1, 4)
    objects = box_convert(objects, "xywh", "xyxy")
    categories = torch.tensor([a["category_id"] for a in here])
    both = moved(image, found, data.categories, threshold)
    labels = found["after"].labels[found["after"].scores >= threshold]
    before, after = (
        torch.where(labels[:, None] == categories, box_iou(boxes, objects), 0) for boxes in (both.before, both.after)
    )  # [N, M]
    overlap, own = before.max(1)
    return both, overlap * first(own), after.gather(1, own[:, None])[:, 0]


def first(values: Tensor) -> Tensor:
    """``[N]`` bool: whether none of the ``values`` before one is the same."""
    return ~(values[:, None] == values).tril(-1).any(1)


def enlargeable(found: Moved, before: Tensor, after: Tensor, smallest: float) -> Moved:
    """The loose ones with sides of at least ``smallest`` pixels may be enlarged; captions say how they fit."""
    names = [caption.rpartition(" ")[0] for caption in found.captions]  # without the score
    fits = zip(names, before.tolist(), after.tolist(), strict=True)
    captions = [f"{name}: IoU {old:.2f} to {new:.2f}" for name, old, new in fits]
    large = (found.after[:, 2:] - found.after[:, :2]).amin(1) >= smallest
    return replace(found, captions=captions, candidates=large & loose(before))


def loose(overlap: Tensor) -> Tensor:
    """``[N]`` bool: near its object, and not tight."""
    return (overlap >= NEAR) & (overlap < TIGHT)


if __name__ == "__main__":
    typer.run(main)
