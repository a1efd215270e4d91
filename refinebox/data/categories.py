"""Which category of the data is which of the detector: the commonest cause of an AP of 0, so it is checked."""

from collections.abc import Mapping
from typing import Literal

Matching = Literal["check", "id", "name", "order"]

_COCO = (
    "person,bicycle,car,motorcycle,airplane,bus,train,truck,boat,traffic light,fire hydrant,,stop sign,parking meter,"
    "bench,bird,cat,dog,horse,sheep,cow,elephant,bear,zebra,giraffe,,backpack,umbrella,,,handbag,tie,suitcase,frisbee,"
    "skis,snowboard,sports ball,kite,baseball bat,baseball glove,skateboard,surfboard,tennis racket,bottle,,wine glass,"
    "cup,fork,knife,spoon,bowl,banana,apple,sandwich,orange,broccoli,carrot,hot dog,pizza,donut,cake,chair,couch,"
    "potted plant,bed,,dining table,,,toilet,,tv,laptop,mouse,remote,keyboard,cell phone,microwave,oven,toaster,sink,"
    "refrigerator,,book,clock,vase,scissors,teddy bear,hair drier,toothbrush"
)
COCO_NAMES = {category_id: name for category_id, name in enumerate(_COCO.split(","), start=1) if name}


def match_categories(
    data: Mapping[int, str], detector_ids: tuple[int, ...], detector_names: Mapping[int, str], by: Matching = "check"
) -> dict[int, int]:
    """The detector's category id for each of the data's category ids.

    The data may have fewer categories than the detector, never others.

    Args:
        data: category id to name in the annotation file.
        detector_ids: category ids that the detector can predict.
        detector_names: names of those that have one.
        by: ``check`` demands equal ids and, where the detector has names, equal names; ``id`` and
            ``name`` look at one alone; ``order`` takes the data's ids in ascending order for the detector's, as
            detectron2 trains, and demands as many of them.

    Raises:
        ValueError: a category of the data has no counterpart; the message shows both lists.
    """
    if by == "name":
        ids = {
            _plain(detector_names[category_id]): category_id
            for category_id in detector_ids
            if category_id in detector_names
        }
        matched = {category_id: ids.get(_plain(name)) for category_id, name in data.items()}
    elif by == "order":
        counterparts = detector_ids if len(data) == len(detector_ids) else [None] * len(data)
        matched = dict(zip(sorted(data), counterparts, strict=True))
    else:
        known = set(detector_ids)
        matched = {category_id: category_id if category_id in known else None for category_id in data}
        if by == "check":
            for category_id, name in data.items():
                if _plain(detector_names.get(category_id, name)) != _plain(name):
                    matched[category_id] = None
    missing = {category_id: data[category_id] for category_id, counterpart in matched.items() if counterpart is None}
    if missing:
        detector = {category_id: detector_names.get(category_id, "?") for category_id in detector_ids}
        hint = "; pass --categories name to match by name, id to trust the ids, or order if it was trained on these"
        raise ValueError(
            f"the detector does not know {_listed(missing)}: "
            f"the data has {_listed(data)}, the detector {_listed(detector)}{'' if by in ('name', 'order') else hint}"
        )
    return {category_id: counterpart for category_id, counterpart in matched.items() if counterpart is not None}


def _plain(name: str) -> str:
    return name.strip().casefold().replace("_", " ")


def _listed(categories: Mapping[int, str]) -> str:
    return ", ".join(f"{category_id} {name}" for category_id, name in categories.items())
