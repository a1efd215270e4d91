"""What LVIS adds to COCO's annotations: how rare each category is, and what was looked for in each image."""

from refinebox.data.annotations import CocoData

GROUPS = {"r": "APr", "c": "APc", "f": "APf"}  # LVIS' frequencies: in at most 10, at most 100, more training images


def frequency_groups(data: CocoData) -> dict[str, list[int]]:
    """Category ids of LVIS' rare, common and frequent categories, by the name of their AP.

    Raises:
        ValueError: a category has no frequency, or an image does not say which categories were looked for in it.
    """
    unknown = [name for category_id, name in data.categories.items() if data.frequencies.get(category_id) not in GROUPS]
    if unknown:
        raise ValueError(f"category {unknown[0]!r} has no frequency r, c or f; leave out --lvis for COCO annotations")
    for field in ("neg_category_ids", "not_exhaustive_category_ids"):
        lacking = [entry["id"] for entry in data.images if field not in entry]
        if lacking:
            raise ValueError(f"image {lacking[0]} has no {field!r}; leave out --lvis for COCO annotations")
    return {
        name: [category_id for category_id, frequency in data.frequencies.items() if frequency == letter]
        for letter, name in GROUPS.items()
    }
