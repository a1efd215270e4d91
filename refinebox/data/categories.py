"""Which category of the data is which of the detector: the commonest cause of an AP of 0, so it is checked."""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from difflib import get_close_matches
from typing import Literal

Matching = Literal["check", "id", "name", "order"]

SHOWN = 10  # categories in a message
WAY_ON = "name or train a detector of these classes"

_COCO = (
    "person,bicycle,car,motorcycle,airplane,bus,train,truck,boat,traffic light,fire hydrant,,stop sign,parking meter,"
    "bench,bird,cat,dog,horse,sheep,cow,elephant,bear,zebra,giraffe,,backpack,umbrella,,,handbag,tie,suitcase,frisbee,"
    "skis,snowboard,sports ball,kite,baseball bat,baseball glove,skateboard,surfboard,tennis racket,bottle,,wine glass,"
    "cup,fork,knife,spoon,bowl,banana,apple,sandwich,orange,broccoli,carrot,hot dog,pizza,donut,cake,chair,couch,"
    "potted plant,bed,,dining table,,,toilet,,tv,laptop,mouse,remote,keyboard,cell phone,microwave,oven,toaster,sink,"
    "refrigerator,,book,clock,vase,scissors,teddy bear,hair drier,toothbrush"
)
# what others call COCO's categories: Pascal VOC's names in one word, and the names of before 2014
ALIASES = {
    "aeroplane": "airplane",
    "motorbike": "motorcycle",
    "sofa": "couch",
    "tvmonitor": "tv",
    "tv monitor": "tv",
    "pottedplant": "potted plant",
    "diningtable": "dining table",
    "hair dryer": "hair drier",
    "mobile phone": "cell phone",
    "doughnut": "donut",
}
COCO_NAMES = {category_id: name for category_id, name in enumerate(_COCO.split(","), start=1) if name}


def match_categories(
    data: Mapping[int, str],
    detector_ids: tuple[int, ...],
    detector_names: Mapping[int, str],
    by: Matching = "check",
    used: Collection[int] | None = None,
) -> dict[int, int]:
    """The detector's category id for each of the data's category ids.

    The data may have fewer categories than the detector, and others only if no object has them; these are left out.

    Args:
        data: category id to name in the annotation file.
        detector_ids: category ids that the detector can predict.
        detector_names: names of those that have one.
        by: ``check`` demands equal ids and, where the detector has names, equal names; ``id`` and
            ``name`` look at one alone; ``order`` takes the data's ids in ascending order for the detector's, as
            detectron2 trains, and demands as many of them.
        used: the data's categories that objects have; all of them by default.

    Raises:
        ValueError: a category of the data has no counterpart, or a name stands for two; the message shows both lists.
    """
    needed = {category_id: name for category_id, name in data.items() if used is None or category_id in used}
    if by == "name":
        matched = _by_name(data, detector_ids, detector_names)
    elif by == "order":
        listed = data if len(data) == len(detector_ids) else needed
        counterparts = detector_ids if len(listed) == len(detector_ids) else [None] * len(listed)
        matched = dict(zip(sorted(listed), counterparts, strict=True))
    else:
        known = set(detector_ids)
        matched = {category_id: category_id if category_id in known else None for category_id in data}
        if by == "check":
            for category_id, name in data.items():
                if _plain(detector_names.get(category_id, name)) != _plain(name):
                    matched[category_id] = None
    missing = {category_id: name for category_id, name in needed.items() if matched[category_id] is None}
    if missing:
        raise ValueError(_unknown(missing, needed, detector_ids, detector_names, by))
    return {category_id: counterpart for category_id, counterpart in matched.items() if counterpart is not None}


def unlike(data: Mapping[int, str], counterparts: Mapping[int, str]) -> str | None:
    """A sentence where categories were matched by id or order though not one is called as its counterpart is.

    Args:
        data: name of each of the data's categories.
        counterparts: the detector's name for the same.
    """
    if not data or any(_plain(name) == _plain(counterparts[category_id]) for category_id, name in data.items()):
        return None
    pairs = ", ".join(f"{name} is {counterparts[category_id]}" for category_id, name in list(data.items())[:3])
    more = ", …" if len(data) > 3 else ""
    return f"none of the {len(data)} categories is called as the detector calls it ({pairs}{more}); {WAY_ON}"


def _by_name(
    data: Mapping[int, str], detector_ids: tuple[int, ...], detector_names: Mapping[int, str]
) -> dict[int, int | None]:
    ids: dict[str, int] = {}
    for category_id in detector_ids:
        if category_id in detector_names:
            ids.setdefault(_plain(detector_names[category_id]), category_id)
    matched = {category_id: ids.get(_plain(name)) for category_id, name in data.items()}
    twice = [name for name, count in Counter(map(_plain, data.values())).items() if count > 1 and name in ids]
    if twice:
        raise ValueError(f"the data has several categories called {twice[0]}; match by id or order, or rename them")
    return matched


def _unknown(
    missing: Mapping[int, str],
    data: Mapping[int, str],
    detector_ids: tuple[int, ...],
    detector_names: Mapping[int, str],
    by: Matching,
) -> str:
    detector = {category_id: detector_names.get(category_id, "?") for category_id in detector_ids}
    message = (
        f"the detector does not know {_listed(missing)}: the data has {_listed(data)}, the detector {_listed(detector)}"
    )
    names = {_plain(name): name for name in detector_names.values()}
    if names:
        alike = sum(_plain(name) in names for name in data.values())
        message += f"; {alike} of {len(data)} names are known to it"
        near = [
            f"{name} ~ {names[found[0]]}"
            for name in missing.values()
            if _plain(name) not in names and (found := get_close_matches(_plain(name), names, 1))
        ]
        message += f", nearest {', '.join(near[:3])}" if near else ""
        if not alike:
            return f"{message}; {WAY_ON}"
    if by in ("name", "order"):
        return f"{message}; {WAY_ON}"
    return (
        f"{message}; pass --categories name to match by name, id to trust the ids, or order if it was trained on these"
    )


def ids_of(names: Sequence[str]) -> tuple[int, ...]:
    """The category id of each score column: COCO's where the names are COCO's 80, otherwise the column itself."""
    if [_plain(name) for name in names] == list(COCO_NAMES.values()):
        return tuple(COCO_NAMES)
    return tuple(range(len(names)))


def _plain(name: str) -> str:
    plain = name.strip().casefold().replace("_", " ")
    return ALIASES.get(plain, plain)


def _listed(categories: Mapping[int, str]) -> str:
    shown = ", ".join(f"{category_id} {name}" for category_id, name in list(categories.items())[:SHOWN])
    return f"{shown}, … ({len(categories)} in all)" if len(categories) > SHOWN else shown
