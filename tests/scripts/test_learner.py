"""What a small detector learns from."""

from types import ModuleType

import torch

from refinebox.data.batches import Target


def test_noisy_queries_see_their_own_group_and_are_not_seen(script: ModuleType) -> None:
    mask = script.query_mask(6, 2, torch.device("cpu"))
    assert mask[6:, 6:].all()
    assert not mask[6:, :6].any()
    assert mask[:, 6:].all()
    assert mask[0, :6].tolist() == [True, True, False, False, False, False]


def test_cells_learn_the_smallest_object_over_them(script: ModuleType) -> None:
    large, small = [0.5, 0.5, 1.0, 1.0], [0.25, 0.25, 0.4, 0.4]
    target = Target(torch.tensor([large, small]), torch.tensor([4, 2]))
    centres = torch.tensor([[[0.25, 0.25], [0.75, 0.75], [1.2, 0.5]]])
    (image, cell), wanted = script.smallest_objects(centres, [target])
    assert (image.tolist(), cell.tolist(), wanted.columns.tolist()) == ([0, 0], [0, 1], [2, 4])
