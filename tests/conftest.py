"""Small generated data and detectors; nothing here needs a network or a GPU."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from refinebox.adapters.backbone import ResNetSizes
from refinebox.adapters.dab_detr import DabDetr, Sizes, build

from refinebox import data, shapes
from refinebox.data import CocoData
from refinebox.detector import Detector, Profile

SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    """Sums in one order: results repeat bit for bit, and equal those of the references."""
    torch.set_num_threads(1)


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
    return data.read(*data.find(shapes_folder, "train"))


@pytest.fixture(scope="session")
def validation(shapes_folder: Path) -> CocoData:
    return data.read(*data.find(shapes_folder, "val"))


TINY = Sizes(
    ResNetSizes(bottleneck=True, stem=8, depths=(1, 1, 1, 1), inner=(4, 4, 8, 8), channels=(16, 16, 24, 32)),
    width=32,
    feedforward=32,
    encoder_layers=1,
    decoder_layers=2,
    queries=12,
    classes=6,
    patterns=0,
)


@pytest.fixture
def make_detector() -> Callable[..., Detector]:
    """Builds a tiny untrained DAB-DETR for the generated shapes; the same seed gives the same weights."""

    def make(seed: int = 0, sizes: Sizes = TINY, short_side: int = 64) -> Detector:
        torch.manual_seed(seed)
        profile = Profile(
            name="tiny",
            family="dab_detr",
            category_ids=tuple(range(1, sizes.classes + 1)),
            category_names=dict(enumerate(shapes.CATEGORIES, start=1)),
            short_side=short_side,
            long_side=2 * short_side,
            settings={"dilation": True},
        )
        return build(DabDetr(sizes).state_dict(), profile)

    return make


@pytest.fixture
def detector(make_detector: Callable[..., Detector]) -> Detector:
    return make_detector()
