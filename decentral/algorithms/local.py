"""The local optimizer: any torch.optim class, over views into the flat vector."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from decentral.peer import Layout


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

    def step(self, gradient: Tensor) -> None:
        """One step in place on `x` with the flat gradient `(d,)`, which some optimizers overwrite: clone it to keep."""
        if self.x.is_meta:  # a dry run has no numbers
            return
        if gradient is not self._gradient:
            for parameter, block in zip(self.parameters, self.layout, strict=True):
                parameter.grad = block.of(gradient)
            self._gradient = gradient
        self.optimizer.step()
