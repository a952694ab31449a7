"""The local optimizer: what a step may ask of it, and the one that an experiment names, over views into the vector."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from decentral.peer import Layout


@runtime_checkable
class LocalSteps(Protocol):
    """Takes local steps on one node's flat vector: all that an algorithm may ask of its local optimizer."""

    def step(self, gradient: Tensor) -> None:
        """One step in place on the vector with the flat gradient `(d,)`, which may be overwritten: clone it to keep."""


@runtime_checkable
class Local(Protocol):
    """What gives each node its local optimizer."""

    def bind(self, x: Tensor, layout: Layout) -> LocalSteps:
        """The optimizer of one node, at work on `x: (d,)` in the layout's blocks."""


@dataclass(frozen=True)
class LocalOptimizer:
    """A torch.optim class and its options, the learning rate among them."""

    factory: Callable[..., torch.optim.Optimizer]
    options: Mapping[str, Any] = field(default_factory=dict)

    def bind(self, x: Tensor, layout: Layout) -> "BoundOptimizer":
        """The optimizer of one node, its parameters views of `x: (d,)` at the layout's blocks."""
        parameters = [torch.nn.Parameter(block.of(x)) for block in layout]
        return BoundOptimizer(self.factory(parameters, **self.options), x, parameters, layout)


@dataclass(slots=True)
class BoundOptimizer:
    """A local optimizer at work on one node's flat vector, layer by layer."""

    optimizer: torch.optim.Optimizer
    x: Tensor  # (d,) the vector that the parameters view
    parameters: list[torch.nn.Parameter]
    layout: Layout
    _gradient: Tensor | None = None
    _address: int = 0

    def step(self, gradient: Tensor) -> None:
        """One step in place on `x` with the flat gradient `(d,)`, which some optimizers overwrite: clone it to keep."""
        if self.x.is_meta:  # a dry run has no numbers
            return
        if self.x.data_ptr() != self._address:  # mixing moves it
            for parameter, block in zip(self.parameters, self.layout, strict=True):
                parameter.data = block.of(self.x)
            self._address = self.x.data_ptr()
        if gradient is not self._gradient:
            for parameter, block in zip(self.parameters, self.layout, strict=True):
                parameter.grad = block.of(gradient)
            self._gradient = gradient
        self.optimizer.step()
