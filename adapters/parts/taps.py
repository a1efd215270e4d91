"""Feature maps of a network that does not return them, caught on their way through it."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from refinebox.detection.detector import stride_of

COARSEST = 32  # objects are pooled from maps up to this stride; coarser ones hold a handful of cells
LEAST = 8  # channels; what has fewer is a mask, or an image

# the maps in a module's output, for the batch of images that goes through the network
Reader = Callable[[Any, Tensor], Sequence[Tensor]]


class Taps:
    """Catches the last map of every stride while a network runs, and its backbone is run once.

    Args:
        places: modules, each with what reads maps from its output; where two places give maps of the same stride, the
            one that runs later counts.
        run: runs the network on images, and on whatever else a call passes.
        images: ``[B, 3, H, W]`` to run it on first, to see which maps there are.
        returned: whether maps that the network returns count, which are predictions where no backbone is set apart.
        backbone: runs on images what all places lie in, for graphs that are exported, which cannot stop halfway; by
            default they run everything.

    Raises:
        ValueError: there is no map of a stride up to 32.
    """

    def __init__(
        self,
        places: Sequence[tuple[nn.Module, Reader]],
        run: Callable[..., Any],
        images: Tensor,
        *,
        returned: bool = True,
        backbone: Callable[[Tensor], Any] | None = None,
    ) -> None:
        self._places, self._run, self._backbone = tuple(places), run, backbone
        self._wanted: frozenset[tuple[int, int]] = frozenset()
        output, caught = self._through(images)
        predictions = set() if returned else {id(tensor) for tensor in _maps(output)}
        last: dict[int, tuple[int, int]] = {}
        for key, tensor in caught.items():
            if tensor.shape[1] < LEAST or id(tensor) in predictions:
                continue
            last[stride_of(images.shape[-1], tensor.shape[-1])] = key
        self._order = [last[stride] for stride in sorted(last) if 2 < stride <= COARSEST]
        if not self._order:
            raise ValueError(f"it has no feature maps of a stride up to {COARSEST}; found strides {sorted(last)}")
        self._wanted = frozenset(self._order)

    def __call__(self, images: Tensor, *others: Any) -> tuple[Any, tuple[Tensor, ...]]:
        """What the network returns, and the maps, fine to coarse."""
        output, caught = self._through(images, *others)
        return output, tuple(caught[key] for key in self._order)

    def maps(self, images: Tensor, *others: Any) -> tuple[Tensor, ...]:
        """The maps alone; the network stops once it has them."""
        if not torch.compiler.is_exporting():
            caught = self._through(images, *others, only=True)[1]
        elif self._backbone is None:
            caught = self._through(images, *others)[1]
        else:
            caught = self._through(images, run=self._backbone)[1]
        return tuple(caught[key] for key in self._order)

    def _through(
        self, images: Tensor, *others: Any, only: bool = False, run: Callable[..., Any] | None = None
    ) -> tuple[Any, dict[tuple[int, int], Tensor]]:
        caught: dict[tuple[int, int], Tensor] = {}

        def catch(place: int, reader: Reader) -> Callable[[nn.Module, Any, Any], None]:
            def hook(_module: nn.Module, _inputs: Any, output: Any) -> None:
                for index, tensor in enumerate(reader(output, images)):
                    caught.pop((place, index), None)  # a module that runs twice counts where it ran last
                    caught[place, index] = tensor
                if only and self._wanted <= caught.keys():
                    raise _Enough

            return hook

        handles = [
            module.register_forward_hook(catch(place, reader)) for place, (module, reader) in enumerate(self._places)
        ]
        try:
            return (run or self._run)(images, *others), caught
        except _Enough:
            return None, caught
        finally:
            for handle in handles:
                handle.remove()


def layers(backbone: nn.Module) -> Iterator[nn.Module]:
    """The layers of a backbone in order, sequences taken apart and blocks whole."""
    for module in backbone.children():
        if isinstance(module, (nn.Sequential, nn.ModuleList)):
            yield from layers(module)
        else:
            yield module


def maps_in(output: Any, _images: Tensor) -> list[Tensor]:
    """Every ``[B, C, H, W]`` in an output, however deep in tuples, lists and mappings."""
    return list(_maps(output))


def _maps(output: Any) -> Iterator[Tensor]:
    if isinstance(output, Tensor):
        if output.dim() == 4:
            yield output
    elif isinstance(output, Mapping):
        for value in output.values():
            yield from _maps(value)
    elif isinstance(output, (tuple, list)):
        for value in output:
            yield from _maps(value)


class _Enough(Exception):
    """All maps are there; stops the network."""
