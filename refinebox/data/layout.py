"""Where a data set keeps the annotations and the images of a split, in the layouts that labelling tools write."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

Split = Literal["train", "val"]

# names of a split in files and folders, best first; what is only there to test is taken for validation at last
NAMES: dict[Split, tuple[str, ...]] = {"train": ("train", "training"), "val": ("val", "valid", "validation", "test")}
OTHERS = ("captions", "person_keypoints", "stuff", "panoptic", "image_info")  # COCO files that hold no objects
SHOWN = 8  # names in a list of what is there


def find(folder: Path, split: Split) -> tuple[Path, Path]:
    """(annotation file, image folder) of a split.

    The layouts are COCO's (``annotations/instances_val2017.json`` beside ``val2017/`` or ``images/``), as CVAT, mmdet
    and converters of ultralytics data write it too, and those with a folder for each split that holds or stands beside
    its annotations: Roboflow's, FiftyOne's and Label Studio's exports. Letter case does not count.

    Raises:
        FileNotFoundError: none is there, or several could be meant; the message lists what is there.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"no folder at {folder}; check the path")
    files = json_files(folder)
    found: list[Path] = []
    for name in NAMES[split]:
        found = [path for path in files if says(path.relative_to(folder), name)]
        if found:
            break
    found = [path for path in found if path.stem.startswith("instances")] or found
    nearest = min((len(path.parts) for path in found), default=0)
    found = [path for path in found if len(path.parts) == nearest]
    if len(found) > 1:
        found = [path for path in found if is_coco(path)] or found
    if len(found) > 1:
        names = ", ".join(path.name for path in found)
        raise FileNotFoundError(
            f"{found[0].parent} holds several {split} files ({names}); name one with --annotations and --images"
        )
    if not found:
        raise FileNotFoundError(
            f"no {split} annotations under {folder}: expected annotations/instances_{split}*.json; "
            f"name the parts with --annotations and --images{_there(folder, files)}"
        )
    return found[0], images_of(found[0], folder, split)


def json_files(folder: Path) -> list[Path]:
    """The files under a data set's folder that can be annotations, three levels down at most."""
    found = [path for depth in ("*", "*/*", "*/*/*") for path in folder.glob(f"{depth}.json") if path.is_file()]
    return sorted(path for path in found if not path.stem.casefold().startswith(OTHERS))


def says(path: Path, name: str) -> bool:
    """Whether a file, or a folder above it, is named after a split, as ``instances_val2017`` or ``valid/``."""
    words = [path.stem.casefold().removesuffix(".coco"), *(part.casefold() for part in path.parts[:-1])]
    return any(word.strip("0123456789_-. ") == name for text in words for word in (text, *_pieces(text)))


def _pieces(text: str) -> list[str]:
    return text.replace("-", "_").replace(".", "_").replace(" ", "_").split("_")


def images_of(annotations: Path, folder: Path, split: Split) -> Path:
    """The folder of the images of an annotation file: the one named as it is, or as the split, or the general one.

    Raises:
        FileNotFoundError: there is none; the message says what was looked for.
    """
    name = annotations.stem.removeprefix("instances_")
    names = list(dict.fromkeys((name, *NAMES[split])))
    roots = list(dict.fromkeys((folder, folder / "images", annotations.parent / "images", annotations.parent)))
    wanted = [root / one for one in names for root in roots]
    general = [folder / "images", annotations.parent / "images", annotations.parent / "data", folder / "data"]
    for path in (*wanted, *general):
        real = real_folder(path)
        if real is not None:
            return next((real / name for name in ("images", "data") if (real / name).is_dir()), real)
    if annotations.parent != folder / "annotations":
        return annotations.parent
    looked = [folder / name, folder / "images" / name, folder / "images"]
    raise FileNotFoundError(f"no images for {annotations}; looked for the folders {', '.join(map(str, looked))}")


def real_folder(path: Path) -> Path | None:
    """The folder at ``path``, whatever the letter case of its parts; None where there is none."""
    if path.is_dir():
        return path
    above = real_folder(path.parent) if path.parent != path else None
    folders = (one for one in above.iterdir() if one.is_dir()) if above else iter(())
    return next((one for one in folders if one.name.casefold() == path.name.casefold()), None)


def _there(folder: Path, files: Sequence[Path]) -> str:
    """What a folder holds instead, for a message."""
    if files:
        candidates = [str(path.relative_to(folder)) for path in files if is_coco(path)] or [
            str(path.relative_to(folder)) for path in files
        ]
        return f"; there are {_listed(candidates)}"
    names = sorted(path.name + ("/" if path.is_dir() else "") for path in folder.iterdir())
    return f"; there are {_listed(names)}" if names else "; the folder is empty"


def is_coco(path: Path) -> bool:
    """Whether a JSON file holds COCO's lists."""
    try:
        content = json.loads(path.read_bytes())
    except ValueError:
        return False
    return isinstance(content, dict) and {"images", "annotations"} <= content.keys()


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more


def locate(
    split: Split,
    root: Path | None,
    annotations: Path | None,
    images: Path | None,
    *,
    images_needed: bool = True,
) -> tuple[Path, Path]:
    """(annotation file, image folder) of a split that is named by its data set's folder or by its parts.

    Raises:
        FileNotFoundError: the folder holds no such split.
        ValueError: neither is named, or both are.
    """
    if annotations is not None and (images is not None or not images_needed):
        return annotations, images or annotations.parent
    if root is not None and annotations is None and images is None:
        return find(root, split)
    raise ValueError(
        f"the {split} images are not named: pass --data DIR, or both the annotation file and the image folder"
    )
