"""One row of the table of names: a published detector and where its weights are."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from refinebox.detection.profile import InputFormat, Layout, Profile
from refinebox.files.download import File, home


@dataclass(frozen=True)
class Entry:
    """One row of the table of names.

    Attributes:
        family: module of ``refinebox.adapters``.
        backbone: for people to read.
        ap: published AP; None where none is published.
        layout: how the published file names its tensors.
        source: address of the file, the page that leads to it, or the name of a file in this package.
        sha256: of the file, or the beginning of it that is published; empty where nothing is.
        megabytes: of the file, where published.
        settings: what the tensors cannot tell, as keyword arguments of the network.
        refiner: name of the published refiner for these weights; empty where there is none.
        refined_ap: published AP with it.
        licence: of the weights.
        short_side, long_side: of the input, in pixels, that the AP was measured at.
    """

    family: str
    backbone: str
    ap: float | None
    layout: str
    source: str
    sha256: str = ""
    megabytes: int | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    refiner: str = ""
    refined_ap: float | None = None
    licence: str = "Apache-2.0"
    short_side: int = 800
    long_side: int = 1333

    @property
    def bundled(self) -> Path | None:
        """The weights' path where they ship with the package."""
        return None if self.source.startswith("https://") else Path(__file__).parents[1] / self.source

    def profile(self, name: str, layout: Layout) -> Profile:
        """What the row says of a checkpoint that came in ``layout``."""
        form = input_of(layout).resized(self.short_side, self.long_side)
        return Profile(name, self.family, input=form, layout=layout, settings=self.settings)

    def file(self, name: str) -> File | None:
        """Where the weights are and where they are kept; None where they ship or only a page leads to them."""
        suffix = Path(self.source).suffix
        if self.bundled or suffix not in (".pth", ".safetensors"):
            return None
        return File(self.source, cached(name, suffix), self.sha256)


def cached(name: str, suffix: str = ".pth") -> Path:
    """Where the weights of a published detector are kept."""
    return home() / "detectors" / f"{name}{suffix}"


def input_of(layout: Layout) -> InputFormat:
    """How the code that a layout belongs to brings images in."""
    if layout == "mmdet2" or layout == "mmdet3":
        # with OpenCV, which like torch without antialiasing looks at the nearest four pixels alone
        return InputFormat(rounding="mmdet", library="torch", antialias=False)
    return InputFormat(rounding=layout)
