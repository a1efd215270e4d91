"""A detector's categories beside those of a data set."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from refinebox.data.annotations import CocoData
from refinebox.data.categories import Matching, match_categories
from refinebox.detection.detector import Detector
from refinebox.progress import tell


@dataclass(frozen=True)
class Link:
    """A detector and a data set whose categories have been matched.

    Attributes:
        data_ids: the data's category id of each of the detector's, which is what results are written with.
        columns: the detector's score column of each of the data's category ids.
        width: how many score columns the detector has.
    """

    data_ids: Mapping[int, int]
    columns: Mapping[int, int]
    width: int

    @classmethod
    def between(cls, detector: Detector, data: CocoData, by: Matching = "check") -> "Link":
        """Raises ValueError where the categories differ; see :func:`refinebox.data.categories.match_categories`.

        A detector that has no categories of its own takes the data's; one that is told in words what to look for is
        told their names, unless it was told something else, and then its phrases are matched by name.
        """
        if not detector.category_ids:
            detector.name_categories([{"id": number, "name": name} for number, name in data.categories.items()])
            if detector.takes_text:
                tell(f"{detector.profile.name} looks for the data's categories: {'. '.join(data.categories.values())}.")
        elif detector.takes_text and by == "check":
            by = "name"
        matched = match_categories(data.categories, detector.category_ids, detector.category_names, by, data.used)
        column_of = {category_id: column for column, category_id in enumerate(detector.category_ids)}
        return cls(
            data_ids={detector_id: data_id for data_id, detector_id in matched.items()},
            columns={data_id: column_of[detector_id] for data_id, detector_id in matched.items()},
            width=len(detector.category_ids),
        )

    def categories(self, data: CocoData) -> list[dict[str, Any]]:
        """Id and name in the data of every score column in turn; empty where the data has none for some column."""
        ids = sorted(self.columns, key=self.columns.__getitem__)
        if [self.columns[category_id] for category_id in ids] != list(range(self.width)):
            return []
        return [{"id": category_id, "name": data.categories[category_id]} for category_id in ids]
