"""Which image, and which category, a results file means."""

from collections.abc import Hashable, Mapping, Sequence
from typing import Any, Literal

from refinebox.data.annotations import CocoData
from refinebox.data.fields import brief, whole
from refinebox.data.image_files import Index, parts_of
from refinebox.data.tally import Tally

Counting = Literal["check", "id", "name", "order"]


def images(entries: Sequence[Mapping[str, Any]], data: CocoData, tally: Tally) -> dict[Hashable, int]:
    """The number of the image of every reference (see :func:`reference`) in ``entries``.

    A ``file_name`` says which image it is, whatever id stands beside it. Without one, the id does, or, where it is none
    of the data's, the one file of this name, of this stem, or of this number.

    Raises:
        ValueError: an image is none of the data's, or names and ids contradict each other.
    """
    references = list(dict.fromkeys(map(reference, entries)))
    by_id = {item: data.image_ids.number(item[0]) for item in references}
    if any(item[1] is not None for item in references):
        return _by_name(references, by_id, data, tally)
    unknown = [item[0] for item in references if by_id[item] is None]
    if not unknown:
        return {item: number for item, number in by_id.items() if number is not None}
    names = Names(data)
    by_stem = {item: names.number(str(item[0])) for item in references}
    if None in by_stem.values():
        listed = ", ".join(map(brief, unknown[:5]))
        raise ValueError(
            f"detections name image ids that the data does not have: {listed}; is it of these annotations? "
            f"({len(unknown)} of its {len(references)} images are not in them; the data's begin with "
            f"{', '.join(map(brief, list(data.image_ids.originals.values())[:3]))})"
        )
    tally.add("image ids matched with the names of the files", f"{references[0][0]!r}", len(references))
    return {item: number for item, number in by_stem.items() if number is not None}


def reference(entry: Mapping[str, Any]) -> tuple[Any, str | None]:
    """(image id, file name) as the file has them; the name is None where there is none."""
    name = entry.get("file_name")
    image = entry.get("image_id")
    return image if isinstance(image, Hashable) else str(image), name if isinstance(name, str) and name else None


def told(item: tuple[Any, str | None]) -> str:
    """How a reference names its file: by name, or by an id that is one."""
    image, name = item
    return str(image) if name is None else name


class Names:
    """The data's images by the names of their files."""

    def __init__(self, data: CocoData) -> None:
        named = [(str(entry["file_name"]), entry["id"]) for entry in data.images if entry.get("file_name")]
        paths = ["/".join(parts_of(name)) for name, _ in named]
        self.index = Index(paths)
        self.numbers = {path: number for path, (_, number) in zip(paths, named, strict=True)}

    def number(self, name: str) -> int | None:
        """The one image whose file ``name`` can mean."""
        found = self.index.meant(name)
        return None if found is None else self.numbers[found]


def _by_name(
    references: list[tuple[Any, str | None]],
    by_id: Mapping[tuple[Any, str | None], int | None],
    data: CocoData,
    tally: Tally,
) -> dict[Hashable, int]:
    names = Names(data)
    by_name = {item: None if item[1] is None else names.number(item[1]) for item in references}
    other = [item for item in references if by_name[item] is not None and by_id[item] not in (None, by_name[item])]
    unnamed = [item for item in references if by_name[item] is None]
    if unnamed and (other or any(by_id[item] is None for item in unnamed)):
        image, name = unnamed[0]
        shown = (
            f"file_name {brief(name)}"
            if name is not None
            else f"image_id {brief(image)}, which has no file_name beside it,"
        )
        raise ValueError(
            f"{shown} is no image of the data ({len(unnamed)} of {len(references)} are none); "
            "is it of these annotations?"
        )
    changed = [item for item in references if by_name[item] not in (None, by_id[item])]
    tally.add("image ids that are not the data's, matched by file_name", f"{references[0][1]}", len(changed))
    found = {item: by_id[item] if number is None else number for item, number in by_name.items()}
    return {item: number for item, number in found.items() if number is not None}


def categories(
    entries: Sequence[Mapping[str, Any]], data: CocoData, counting: Counting, tally: Tally
) -> dict[str, int]:
    """The number of the category of every ``category_id`` in ``entries``, by its text.

    Args:
        entries: detections.
        data: whose categories they have.
        counting: ``order`` takes ids for places in the data's list, from 0 on; ``name`` reads ``category_name`` or an
            id that is a name; the others take ids for the data's, or for names where none is.
        tally: counts what was guessed.

    Raises:
        ValueError: a category is none of the data's.
    """
    ids = {str(entry["category_id"]): entry for entry in entries}
    if counting == "order":
        return _by_place(ids, data)
    named = {name.strip().casefold(): number for number, name in data.categories.items()}
    by_name = {text: named.get(str(entry.get("category_name", text)).strip().casefold()) for text, entry in ids.items()}
    by_id = {text: data.category_ids.number(entry["category_id"]) for text, entry in ids.items()}
    found = by_name if counting == "name" else by_id
    if counting != "name" and None in found.values() and None not in by_name.values():
        tally.add("category ids read as names", next(iter(ids), ""), len(ids))
        found = by_name
    unknown = [text for text, number in found.items() if number is None]
    if unknown:
        listed = ", ".join(f"{value} {brief(name)}" for value, name in list(data.categories.items())[:5])
        raise ValueError(
            f"detections name category ids that the data does not have: {', '.join(map(brief, unknown[:5]))}; is it of "
            f"these annotations? The data has {listed}{' …' if len(data.categories) > 5 else ''}; if its categories "
            "are places from 0, pass --categories order"
        )
    return {text: number for text, number in found.items() if number is not None}


def _by_place(ids: Mapping[str, Any], data: CocoData) -> dict[str, int]:
    places = {text: whole(text) for text in ids}
    highest = max((place for place in places.values() if place is not None), default=0)
    # a category that no object has is one that many tools add on top, and no detector learns
    listed = sorted(data.used) if highest < len(data.used) else sorted(data.categories)
    wrong = [text for text, place in places.items() if place is None or not 0 <= place < len(listed)]
    if wrong:
        raise ValueError(
            f"category ids are not places in a list of {len(listed)}: {', '.join(map(brief, wrong[:5]))}; "
            f"expected 0 to {len(listed) - 1}"
        )
    return {text: listed[place] for text, place in places.items() if place is not None}
