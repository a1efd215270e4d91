"""Detections in many images as columns, a row an image, and what they are in Arrow; torch is not needed for that."""

from collections.abc import Mapping, Sequence
from typing import Any

from refinebox.detection.extras import library

COLUMNS = ("image_id", "boxes", "scores", "labels", "moved", "width", "height", "error")
Columns = dict[str, list[Any]]


def empty_row(image_id: Any) -> dict[str, Any]:
    """A row without detections."""
    return {
        **dict.fromkeys(COLUMNS),
        "image_id": image_id,
        **{name: [] for name in COLUMNS[1:5]},
        "width": 0,
        "height": 0,
    }


def columns_of(rows: Sequence[Mapping[str, Any]]) -> Columns:
    """The rows as a list for each of :data:`COLUMNS`."""
    return {name: [row[name] for row in rows] for name in COLUMNS}


def table(columns: Mapping[str, Sequence[Any]], metadata: Mapping[str, str] | None = None) -> Any:
    """A ``pyarrow.Table`` of the same types whatever is in it; only ids keep their own.

    Raises:
        ValueError: pyarrow cannot be imported.
    """
    arrow = library("pyarrow", "parquet", "Arrow tables and Parquet")
    numbers = arrow.list_(arrow.float32())
    types = {
        "boxes": arrow.list_(numbers),
        "scores": numbers,
        "labels": arrow.list_(arrow.int64()),
        "moved": numbers,
        "width": arrow.int32(),
        "height": arrow.int32(),
        "error": arrow.string(),
    }
    ids = arrow.array(columns["image_id"])
    arrays = {"image_id": ids if len(ids) else ids.cast(arrow.string())}
    arrays |= {name: arrow.array(columns[name], kind) for name, kind in types.items()}
    found = arrow.table(arrays)
    return found if metadata is None else found.replace_schema_metadata(metadata)
