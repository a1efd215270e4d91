"""A detector that finds nothing: boxes, scores and labels from a results file, features of another detector."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from PIL import Image
from torch import Tensor

from refinebox.data import results_file
from refinebox.data.annotations import CocoData
from refinebox.data.input_format import InputFormat
from refinebox.data.proposals import Found, OneByOne, Proposals, RowsByImage
from refinebox.data.references import reference, told
from refinebox.data.results_file import Rows
from refinebox.data.tally import Tally
from refinebox.detection.choice import Choice
from refinebox.detection.detector import Detector
from refinebox.detection.output import DetectorOutput
from refinebox.detection.profile import Profile
from refinebox.progress import tell

FAMILY = "given"
EVERYTHING = 10**9  # detections in an image


class Given(Detector):
    """Boxes from a results file of any detector, and the feature maps of ``source``, which is frozen as well.

    A detection has one label, so every other score of its query is 0. All of them are returned: whoever wrote the file
    has already chosen. Boxes are taken as they are, also beyond the image, and are not clipped.

    Args:
        source: whose :meth:`extract` gives the features: a detector, or a backbone alone.
        described: what a file must say to build ``source`` again.
        results: the file for images that no annotations are named for.
        category_ids, category_names: of the detections, as far as they are known; otherwise those of the data.
    """

    takes_boxes = True

    def __init__(
        self,
        source: Detector,
        described: Mapping[str, Any],
        results: Path | None = None,
        category_ids: tuple[int, ...] = (),
        category_names: Mapping[int, str] | None = None,
    ) -> None:
        profile = Profile(
            name=f"given boxes on {source.profile.name}",
            family=FAMILY,
            classification="probability",
            category_ids=category_ids,
            category_names=category_names or {},
            input=source.profile.input,
            settings={"features": dict(described)},
            choice=Choice("pairs", limit=EVERYTHING, above=0.0),
        )
        super().__init__(profile)
        self.memory_format, self.probe_side = source.memory_format, source.probe_side
        self.source, self.results = source, results
        self.freeze()

    def detect(self, images: Tensor, sizes: Tensor) -> DetectorOutput:
        raise ValueError(f"{self.profile.name}: {self._unnamed('these images')}")

    def detect_given(self, images: Tensor, sizes: Tensor, proposals: Proposals) -> DetectorOutput:
        return DetectorOutput(self.source.extract(images, sizes), proposals.boxes, proposals.scores)

    def extract(self, images: Tensor, sizes: Tensor) -> tuple[Tensor, ...]:
        return self.source.extract(images, sizes)

    def probe(self) -> DetectorOutput:
        """The features for one black image, without a box in it."""
        maps = self.source.probe().features
        return DetectorOutput(maps, maps[0].new_zeros(1, 0, 4), maps[0].new_zeros(1, 0, len(self.category_ids)))

    def proposals(self, data: CocoData, columns: Mapping[int, int]) -> Mapping[int, Found]:
        """The rows that belong to ``data``, or those of the detector's own results file that are of its images.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: no file is named, it is none, it has no detection in these images, or a label or score in it
                cannot be.
        """
        rows = data.given
        if rows is None:
            if self.results is None:
                raise ValueError(self._unnamed(str(data.source or data.folder)))
            rows = rows_of(self.results, data)
        return RowsByImage(rows, [entry["id"] for entry in data.images], columns, len(self.category_ids))

    def proposals_in(self, paths: Sequence[Path]) -> Sequence[Found]:
        if self.results is None:
            raise ValueError(self._unnamed(str(paths[0])))
        names = {number: self.category_names.get(number, str(number)) for number in self.category_ids}
        data = replace(image_files(paths), categories=names)
        rows = rows_of(self.results, data)
        if not self.category_ids:
            self.category_ids = tuple(sorted(set(rows[:, 6].astype(int).tolist())))
        columns = {category_id: column for column, category_id in enumerate(self.category_ids)}
        found = self.proposals(replace(data, given=rows), columns)
        return OneByOne(found, [entry["id"] for entry in data.images])

    def take(self, results: Path) -> None:
        self.results = results

    def _unnamed(self, what: str) -> str:
        return f"boxes for {what} come from a results file, and none is named; pass --results FILE"

    def tensors(self) -> dict[str, Tensor]:
        return self.source.tensors()

    def preprocess(self, image: Image.Image) -> Tensor:
        return self.source.preprocess(image)

    def reformat(self, form: InputFormat) -> None:
        self.source.reformat(form)
        super().reformat(form)


def image_files(paths: Sequence[Path], folder: Path = Path()) -> CocoData:
    """Image files as a data set without objects or categories; ``paths`` are relative to ``folder``, or absolute.

    Ids are negative, so that no id of a results file is one of them by accident.
    """
    images = [{"id": -number, "file_name": str(path)} for number, path in enumerate(paths, start=1)]
    return CocoData(images, [], {}, folder, {})


def rows_of(results: Path, data: CocoData) -> Rows:
    """``[N, 7]`` the detections of a results file that are in images of ``data``, which are known by name.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no results file, all of its detections are in other images, one is of another category, or
            boxes are not x, y, width and height in pixels.
    """
    entries = results_file.read_entries(results)
    own = results_file.within(entries, data)
    counted = [entry["image_id"] for entry in own if "file_name" not in entry and isinstance(entry["image_id"], int)]
    if counted and counted[0] not in data.image_ids.originals:
        tell(
            f"{results}: image ids such as {counted[0]} are taken for the numbers that files are named by", warning=True
        )
    if entries and not own:
        raise ValueError(
            f"{results} has no detection in any of these {len(data.images)} images, such as "
            f"{data.images[0]['file_name']}: its first is in image {told(reference(entries[0]))}; a detection names "
            "its image by file_name, or by the name of the file as image_id"
        )
    if not data.categories:
        labels = sorted({int(entry["category_id"]) for entry in own})
        data = replace(data, categories={label: str(label) for label in labels})
    try:
        rows = results_file.rows(own, data, "check", Tally())
    except ValueError as error:
        raise ValueError(f"{results}: {error}") from error
    try:
        results_file.reading(rows, data)
    except ValueError as error:
        raise ValueError(
            f"{results}: {str(error).partition(':')[0]}; expected x, y, width and height in pixels: write them "
            "so, or let refinebox refine --boxes read them"
        ) from error
    if (rows[:, 3:5] < 0).any():
        raise ValueError(
            f"{results}: some boxes have negative sides; write x, y of the top left corner, width and height"
        )
    return rows
