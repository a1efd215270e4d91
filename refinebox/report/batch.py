"""Batches of images through an upgraded detector, for programs that share out millions: Ray Data, Spark, a loop."""

from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

COLUMNS = ("image_id", "boxes", "scores", "labels", "moved", "error")


class Refine:
    """A function of a batch that is cheap to send to another process: it opens the detector when it is first called.

    Args:
        model: an upgraded checkpoint, an exported file, or a detector's name, as ``refinebox predict`` takes it.
        weights: the detector's checkpoint, where ``model`` is a name.
        device: ``cpu``, ``cuda``, ...; ``auto`` is the GPU where there is one.
        threshold: lowest score that is returned.
    """

    def __init__(
        self, model: str | Path, weights: str | Path | None = None, device: str = "auto", threshold: float = 0.05
    ) -> None:
        self.model, self.weights, self.device, self.threshold = str(model), weights, device, threshold
        self._detector: Any = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_detector": None}

    def __call__(self, batch: Mapping[str, Sequence[Any]]) -> dict[str, list[Any]]:
        """A row for every image, in the batch's order, as lists by :data:`COLUMNS`.

        ``boxes`` are xyxy in pixels of the image, ``labels`` category ids, and ``moved`` is how far the refiner moved
        the edge that it moved furthest, in pixels; 0 without a refiner. An image that cannot be read has no boxes, and
        its ``error`` says why; it is None for others. Images go through one at a time, so that padding plays no part.

        Args:
            batch: ``path``, a list of files, or ``bytes``, a list of their contents; and perhaps ``image_id``, by
                default the path or the place in the batch. Further columns are ignored.

        Raises:
            ValueError: there is neither ``path`` nor ``bytes``; or the detector cannot be opened.
            FileNotFoundError: there is no such detector.
        """
        kind = next((name for name in ("path", "bytes") if name in batch), None)
        if kind is None:
            raise ValueError(f"the batch has the columns {', '.join(batch)}; expected path or bytes")
        items = list(batch[kind])
        ids = batch.get("image_id", items if kind == "path" else range(len(items)))
        rows = [self._row(image_id, item) for image_id, item in zip(ids, items, strict=True)]
        return {name: [row[name] for row in rows] for name in COLUMNS}

    def _row(self, image_id: Any, item: Any) -> dict[str, Any]:
        from refinebox.data.images import read_image
        from refinebox.report.predictions import detect_image

        row: dict[str, Any] = {
            "image_id": image_id,
            "boxes": [],
            "scores": [],
            "labels": [],
            "moved": [],
            "error": None,
        }
        try:
            image = read_image(Path(item) if isinstance(item, str | Path) else _Content(item))
        except (ValueError, OSError) as error:
            return {**row, "error": str(error)}
        detector = self._opened()
        found = detect_image(detector, image)
        before, after = found["before"], found.get("after", found["before"])
        moved = (after.boxes - before.boxes).abs().amax(1)  # [N]
        assert after.queries is not None  # select says them
        moved_of = dict(zip(after.queries.tolist(), moved.tolist(), strict=True))
        final = detector.finish(after, (image.height, image.width))  # which may drop some
        kept = final.scores >= self.threshold
        columns = {"boxes": final.boxes, "scores": final.scores, "labels": final.labels}
        moved_here = [moved_of[query] for query in final.queries[kept].tolist()]
        return {**row, **{name: tensor[kept].tolist() for name, tensor in columns.items()}, "moved": moved_here}

    def _opened(self) -> Any:
        if self._detector is None:
            from refinebox import distributed
            from refinebox.refinement.upgraded import open_model

            detector = open_model(self.model, None if self.weights is None else Path(self.weights))
            self._detector = detector.to(distributed.start(self.device))
        return self._detector


class _Content(BytesIO):
    """A file's content, as messages call it."""

    def __str__(self) -> str:
        return "the content"
