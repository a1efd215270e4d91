"""Batches of images through an upgraded detector, for programs that share out millions: Ray Data, Spark, a loop."""

from io import BytesIO
from pathlib import Path
from typing import Any

from refinebox.report.columns import COLUMNS as COLUMNS
from refinebox.report.columns import columns_of, table


class Refine:
    """A function of a batch that is cheap to send to another process: it opens the detector when it is first called.

    Args:
        model: an upgraded checkpoint, an exported file, or a detector's name, as ``refinebox predict`` takes it.
        weights: the detector's checkpoint, where ``model`` is a name.
        device: ``cpu``, ``cuda``, ...; ``auto`` is the GPU where there is one.
        threshold: lowest score that is returned.
        prompt: what a detector that takes text is to look for.
    """

    def __init__(
        self,
        model: str | Path,
        weights: str | Path | None = None,
        device: str = "auto",
        threshold: float = 0.05,
        prompt: str | None = None,
    ) -> None:
        self.model, self.weights, self.device = str(model), weights, device
        self.threshold, self.prompt = threshold, prompt
        self._detector: Any = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_detector": None}

    def __call__(self, batch: Any) -> Any:
        """A row for every image, in the batch's order, in columns of the kind that came.

        A ``pyarrow.Table`` gives a table, whose columns have the same types whatever was found; a pandas ``DataFrame``
        gives one; anything else, such as a dictionary of lists or of NumPy arrays, gives a dictionary of lists. Their
        names are :data:`COLUMNS`:

        - ``image_id``: that of the batch; otherwise the path, or else the place in the batch;
        - ``boxes`` (xyxy in pixels of the image), ``scores``, ``labels`` (category ids): the detections;
        - ``moved``: how far the edge that was moved furthest was moved, in pixels; 0 of a detector as it is;
        - ``width``, ``height``: of the image in pixels, turned as EXIF says; 0 where it cannot be read;
        - ``error``: why the image cannot be read, and None where it can. It has no detections, and the rest of the
          batch is as it would be without it.

        Images go through one at a time, so that what is found does not depend on how they are shared out.

        Args:
            batch: the columns ``bytes``, contents of image files, or ``path``, which are read where there are no
                ``bytes``; and perhaps ``image_id``. Further columns are ignored.

        Raises:
            ValueError: there is neither ``path`` nor ``bytes``; or the detector cannot be opened.
            FileNotFoundError: there is no such detector.
        """
        names = list(getattr(batch, "column_names", batch))  # of a pyarrow.Table, or else of a DataFrame or a mapping
        kind = next((name for name in ("bytes", "path") if name in names), None)
        if kind is None:
            raise ValueError(f"the batch has the columns {', '.join(names)}; expected path or bytes")
        items = _values(batch[kind])
        known_by = next((name for name in ("image_id", "path") if name in names), None)
        ids = _values(batch[known_by]) if known_by else range(len(items))
        rows = [self._row(image_id, item) for image_id, item in zip(ids, items, strict=True)]
        found = columns_of(rows)
        if hasattr(batch, "to_pydict"):  # a pyarrow.Table
            return table(found)
        return type(batch)(found) if hasattr(batch, "to_dict") else found  # a pandas.DataFrame

    def _row(self, image_id: Any, item: Any) -> dict[str, Any]:
        from refinebox.report.returned import row_of

        file = Path(item) if isinstance(item, str | Path) else _Content(item)
        return row_of(self._opened(), image_id, file, self.threshold)

    def _opened(self) -> Any:
        if self._detector is None:
            from refinebox import distributed
            from refinebox.detection.prompt import phrases_in
            from refinebox.refinement.upgraded import open_model

            detector = open_model(self.model, None if self.weights is None else Path(self.weights))
            if detector.takes_boxes:
                raise ValueError(
                    f"{self.model} takes its boxes from a results file; run refinebox predict --results FILE --format "
                    "parquet, or refinebox refine"
                )
            if self.prompt is not None:
                detector.ask(phrases_in(self.prompt))
            self._detector = distributed.placed(detector, self.device)
        return self._detector


def _values(column: Any) -> list[Any]:
    """Python's own values of a column of Arrow's, NumPy's or pandas', or of a list."""
    name = next((name for name in ("to_pylist", "tolist") if hasattr(column, name)), None)
    return list(getattr(column, name)() if name else column)


class _Content(BytesIO):
    """A file's content, as messages call it."""

    def __str__(self) -> str:
        return "the content"
