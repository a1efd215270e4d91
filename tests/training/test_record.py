"""A record gives back what the refiner reads, and no other cell."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from refinebox.refinement.architecture import ARCHITECTURES
from refinebox.refinement.refiner import Refiner
from refinebox.training.learner import observed_losses
from refinebox.training.observation import Observation
from refinebox.training.record import (
    Record,
    empty_maps,
    encode,
    fill,
    map_sizes,
    read,
    readable,
    recorded,
)

STRIDES, CHANNELS = (4, 8, 16, 32), (8, 8, 16, 16)


def observation(boxes: Tensor, size: tuple[int, int] = (160, 224)) -> Observation:
    """One image with these predicted boxes, each a little beside its object, and random features."""
    generator = torch.Generator().manual_seed(0)
    features = [
        torch.randn(1, count, *cells, generator=generator)
        for count, cells in zip(CHANNELS, map_sizes(size, STRIDES), strict=True)
    ]
    image = torch.zeros(len(boxes), dtype=torch.int64)
    return Observation(tuple(features), boxes, boxes * 1.05, image, torch.tensor([size]), [1])


def rebuilt(seen: Observation, enlargement: float, padded: tuple[int, int] = (160, 224)) -> Observation:
    record = recorded(seen, 0, len(seen.boxes), padded, STRIDES, enlargement)
    maps = empty_maps([record], STRIDES, torch.device("cpu"))
    fill(maps, [record])
    return replace(seen, features=tuple(maps))


@pytest.mark.parametrize("name", ARCHITECTURES)
@pytest.mark.parametrize("side", [0.03, 0.1, 0.3, 0.9])
def test_the_refiner_sees_what_it_would_have_seen(side: float, name: str) -> None:
    """Losses and their gradients from the known cells alone, at half precision, for boxes of every size."""
    seen = observation(torch.tensor([[0.3, 0.4, side, side], [0.6, 0.5, side / 2, side]]))
    torch.manual_seed(0)
    refiner = Refiner(CHANNELS, STRIDES, architecture=ARCHITECTURES[name])
    # an untrained one moves boxes further than any other, or not at all
    torch.nn.init.normal_(refiner.bboxes_refiner.bboxes_deltas.weight, std=0.001)
    found = []
    for observed in (
        replace(seen, features=tuple(f.half().float() for f in seen.features)),
        rebuilt(seen, refiner.architecture.enlargement),
    ):
        refiner.zero_grad()
        losses = observed_losses(refiner, observed, jitter=2, key="0")
        torch.stack(list(losses.values())).sum().backward()
        gradients = [parameter.grad.clone() for parameter in refiner.bboxes_refiner.parameters()]  # type: ignore[union-attr]
        found.append((torch.stack(list(losses.values())), gradients))
    torch.testing.assert_close(found[1][0], found[0][0])
    for ours, whole in zip(found[1][1], found[0][1], strict=True):
        torch.testing.assert_close(ours, whole, rtol=1e-3, atol=1e-5)


def test_a_small_box_needs_few_cells_and_a_large_one_no_fine_ones() -> None:
    sizes = map_sizes((800, 1216), STRIDES)
    small = readable(torch.tensor([[100.0, 100.0, 140.0, 140.0]]), sizes, STRIDES)
    assert [kept.sum().item() for kept in small] == [28 * 28, 18 * 18, 13 * 13, 9 * 9]
    around = readable(torch.tensor([[100.0, 100.0, 140.0, 140.0]]), sizes, STRIDES, 1.5)
    assert [kept.sum().item() for kept in around] == [32 * 32, 20 * 20, 15 * 15, 9 * 9]
    large = readable(torch.tensor([[100.0, 100.0, 600.0, 600.0]]), sizes, STRIDES)
    assert [bool(kept.any()) for kept in large] == [False, False, True, True]
    assert not any(kept.any() for kept in readable(torch.zeros(0, 4), sizes, STRIDES))


def test_maps_of_another_kind_leave_the_boxes_alone() -> None:
    seen = observation(torch.tensor([[0.5, 0.5, 0.2, 0.2]]))
    record = recorded(seen, 0, 1, (164, 224), STRIDES)
    assert record.kept == ()
    assert torch.equal(record.boxes, seen.boxes)


def test_a_record_fits_into_batches_of_other_padding() -> None:
    """Of a batch with more padding than this one had, and with less than it was recorded in."""
    seen = observation(torch.tensor([[0.9, 0.9, 0.2, 0.2]]))
    record = recorded(seen, 0, 1, (160, 224), STRIDES)
    for size in ((200, 300), (120, 100)):
        other = replace(record, size=torch.tensor(size))
        maps = empty_maps([other], STRIDES, torch.device("cpu"))
        fill(maps, [other])
        for feature, kept, whole in zip(maps, record.kept, seen.features, strict=True):
            height, width = (min(a, b) for a, b in zip(feature.shape[-2:], kept.shape, strict=True))
            expected = torch.where(kept, whole, 0.0).half().float()[..., :height, :width]
            assert torch.equal(feature[..., :height, :width], expected)
            assert not feature[..., height:, :].any()
            assert not feature[..., width:].any()


def test_large_values_stay_finite() -> None:
    seen = observation(torch.tensor([[0.5, 0.5, 0.2, 0.2]]))
    seen = replace(seen, features=tuple(1e6 * feature for feature in seen.features))
    assert all(values.isfinite().all() for values in recorded(seen, 0, 1, (160, 224), STRIDES).values)


def test_a_file_gives_the_record_back(tmp_path: Path) -> None:
    record = recorded(observation(torch.tensor([[0.5, 0.5, 0.2, 0.2]])), 0, 3, (160, 224), STRIDES)
    for written in (record, record.without_cells()):
        (tmp_path / "one").write_bytes(encode(written))
        found = read(tmp_path / "one")
        assert isinstance(found, Record)
        assert found.objects == 3
        for name in ("boxes", "wanted", "size"):
            assert torch.equal(getattr(found, name), getattr(written, name))
        for name in ("kept", "values"):
            assert len(getattr(found, name)) == len(getattr(written, name))
            assert all(map(torch.equal, getattr(found, name), getattr(written, name)))


@pytest.mark.parametrize("length", [0, 5, 100, -1])
def test_a_damaged_file_counts_as_none(tmp_path: Path, length: int) -> None:
    data = encode(recorded(observation(torch.tensor([[0.5, 0.5, 0.2, 0.2]])), 0, 1, (160, 224), STRIDES))
    assert read(tmp_path / "one") is None
    (tmp_path / "one").write_bytes(data[:length])
    assert read(tmp_path / "one") is None
