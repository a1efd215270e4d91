"""The benchmark of several processes, on a tiny detector; what it measures is not judged here."""

from types import ModuleType

import torch
from refinebox.adapters.parts.sizes import Sizes


def test_processes_are_measured(script: ModuleType, tiny: Sizes) -> None:
    assert script.throughput(tiny, 2, 2, (64, 96), repeats=1, threads=1) > 0


def test_every_image_is_in_one_share(script: ModuleType) -> None:
    batch = script.random_batch([3, 0, 2, 5, 1], (8, 8), 6)
    shares = [script.share(batch, rank, 2) for rank in range(2)]
    assert [share.image_ids for share in shares] == [[0, 2, 4], [1, 3]]
    assert [len(target.boxes) for share in shares for target in share.targets] == [3, 2, 1, 0, 5]
    assert torch.equal(shares[1].images, batch.images[[1, 3]])
