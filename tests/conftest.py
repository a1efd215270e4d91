"""Small generated data and detectors; nothing here needs a network or a GPU."""

import shutil
import sys
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.parse import urlsplit

import pytest
import torch
from refinebox.adapters.dab_detr import DabDetr, build
from refinebox.adapters.parts.backbone import ResNetSizes
from refinebox.adapters.parts.sizes import Sizes

from refinebox.data import annotations, layout, shapes
from refinebox.data.annotations import CocoData
from refinebox.data.input_format import InputFormat
from refinebox.detection.detector import Detector
from refinebox.detection.profile import Profile

SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    """Sums in one order: results repeat bit for bit, and equal those of the references."""
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _no_width(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lines are as long as they are, whatever the terminal of whoever runs the tests says of itself."""
    monkeypatch.delenv("COLUMNS", raising=False)


@pytest.fixture(autouse=True)
def _own_cache_and_no_network(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test sees what a user has downloaded, and none downloads from anywhere but this machine."""
    urlopen = urllib.request.urlopen

    def local(request: urllib.request.Request | str, *arguments: Any, **options: Any) -> Any:
        url = request if isinstance(request, str) else request.full_url
        if urlsplit(url).hostname != "127.0.0.1":
            raise URLError("tests have no network")
        return urlopen(request, *arguments, **options)

    monkeypatch.setenv("REFINEBOX_HOME", str(tmp_path_factory.mktemp("home")))
    monkeypatch.setattr(urllib.request, "urlopen", local)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The reference material; tests that need it are skipped where it is not."""
    if not SHARED.is_dir():
        pytest.skip(f"the reference outputs are not at {SHARED}")
    return SHARED


@pytest.fixture(scope="session")
def shapes_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A generated data set in COCO's layout: 6 training and 4 validation images."""
    folder = tmp_path_factory.mktemp("shapes")
    shapes.generate(folder, "train", 6, seed=0)
    shapes.generate(folder, "val", 4, seed=0)
    return folder


@pytest.fixture(scope="session")
def training(shapes_folder: Path) -> CocoData:
    return annotations.read(*layout.find(shapes_folder, "train"))


@pytest.fixture(scope="session")
def validation(shapes_folder: Path) -> CocoData:
    return annotations.read(*layout.find(shapes_folder, "val"))


@pytest.fixture
def spoiled_folder(shapes_folder: Path, tmp_path: Path) -> Path:
    """The same with a broken and a missing training image, and a broken validation image."""
    folder = tmp_path / "spoiled"
    shutil.copytree(shapes_folder, folder)
    for name in ("train/000002.jpg", "val/000001.jpg"):
        (folder / name).write_text("no image")
    (folder / "train/000005.jpg").unlink()
    return folder


TINY = Sizes(
    ResNetSizes(bottleneck=True, stem=8, depths=(1, 1, 1, 1), inner=(4, 4, 8, 8), channels=(16, 16, 24, 32)),
    width=32,
    feedforward=32,
    encoder_layers=1,
    decoder_layers=2,
    queries=12,
    columns=6,
    patterns=0,
)


@pytest.fixture(scope="session")
def tiny() -> Sizes:
    """Of a network that is built in no time."""
    return TINY


@pytest.fixture(scope="session")
def make_detector() -> Callable[..., Detector]:
    """Builds a tiny untrained DAB-DETR for the generated shapes; the same seed gives the same weights."""

    def make(seed: int = 0, sizes: Sizes = TINY, short_side: int = 64) -> Detector:
        torch.manual_seed(seed)
        profile = Profile(
            name="tiny",
            family="dab_detr",
            category_ids=tuple(range(1, sizes.columns + 1)),
            category_names=dict(enumerate(shapes.CATEGORIES, start=1)),
            input=InputFormat(short_side=short_side, long_side=2 * short_side),
            settings={"dilation": True},
        )
        return build(DabDetr(sizes).state_dict(), profile)

    return make


@pytest.fixture
def detector(make_detector: Callable[..., Detector]) -> Detector:
    return make_detector()


CUSTOM = """
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from refinebox.detection.detector import Detector
from refinebox.detection.output import DetectorOutput
from refinebox.detection.profile import InputFormat, Profile
from refinebox.data.shapes import CATEGORIES


class Grid(Detector):
    \"\"\"A box for each of 16 fields of the image.\"\"\"

    def __init__(self, seed):
        names = dict(enumerate(CATEGORIES, start=1))
        super().__init__(
            Profile(
                "grid",
                "anything",
                category_ids=tuple(names),
                category_names=names,
                input=InputFormat(short_side=64, long_side=128),
            )
        )
        torch.manual_seed(seed)
        self.network = nn.Conv2d(3, 16, 8, stride=8)
        self.head = nn.Linear(16, 10)
        self.freeze()

    def detect(self, images, sizes):
        feature = self.network(images)
        fields = self.head(F.adaptive_avg_pool2d(feature, 4).flatten(2).transpose(1, 2))
        return DetectorOutput((feature,), fields[..., :4].sigmoid(), fields[..., 4:])


def build(weights=None):
    detector = Grid(0)
    if weights is not None:
        detector.load_state_dict(torch.load(weights, weights_only=True))
    return detector


def number():
    return 5
"""


@pytest.fixture
def custom(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The name of a function that builds a detector, in a module of the current folder."""
    folder = tmp_path / "own"
    folder.mkdir()
    (folder / "own_detector.py").write_text(CUSTOM)
    monkeypatch.chdir(folder)
    yield "own_detector:build"
    sys.modules.pop("own_detector", None)
