"""The local optimizer: what a step may ask of it, and the one that an experiment names, over views into the vector."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from decentral.errors import ConfigError
from decentral.peer import Layout


@runtime_checkable
class LocalSteps(Protocol):
    """Takes local steps on one node's flat vector: all that an algorithm may ask of its local optimizer."""

    @property
    def lr(self) -> float:
        """The learning rate of this round; in a user's own loop it is known once the gradient is there.

        Raises:
            ConfigError: parameter groups have different ones.
        """

    def begin_round(self, round: int) -> None:
        """Take the learning rate of a round, where a schedule gives one."""

    def decay_(self, gradient: Tensor) -> Tensor:
        """`gradient + weight_decay x`, in place, and with no step: for a method that makes its own of it."""

    def step(self, gradient: Tensor, *, alike: bool = False) -> None:
        """One step in place on the vector with the flat gradient `(d,)`, which may be overwritten: clone it to keep.

        Args:
            alike: all nodes take this very step, to the bit, whatever their own gradients were.
        """


@runtime_checkable
class Local(Protocol):
    """What gives each node its local optimizer."""

    def beyond_sgd(self) -> str:
        """What it does other than `x - lr (g + weight_decay x)`, in the user's words; empty where that is all."""

    def bind(self, x: Tensor, layout: Layout) -> LocalSteps:
        """The optimizer of one node, at work on `x: (d,)` in the layout's blocks."""


@dataclass(frozen=True)
class LocalOptimizer:
    """A torch.optim class and its options, the learning rate among them.

    Args:
        factor: what the learning rate is multiplied by in each round, by the round's number; 1 unless given.
    """

    factory: Callable[..., torch.optim.Optimizer]
    options: Mapping[str, Any] = field(default_factory=dict)
    factor: Callable[[int], float] | None = None

    @cached_property
    def is_bare_sgd(self) -> bool:
        """Whether it is torch.optim.SGD with no options but a learning rate and weight decay, which keeps no state."""
        others = [value for option, value in self.options.items() if option not in ("lr", "weight_decay")]
        return self.factory is torch.optim.SGD and isinstance(self.options.get("lr"), float) and not any(others)

    def bind(self, x: Tensor, layout: Layout) -> "BoundOptimizer":
        """The optimizer of one node, its parameters views of `x: (d,)` at the layout's blocks."""
        parameters = [torch.nn.Parameter(block.of(x)) for block in layout]
        try:
            optimizer = self.factory(parameters, **self.options)
        except ValueError as error:  # such as Muon's, which takes matrices alone
            raise ConfigError(
                f"the local optimizer refuses the model's parameters: {error}; take another, or for Muon with AdamW "
                "beside it optimizer.name: decentral.training.muon.Muon"
            ) from error
        return BoundOptimizer(optimizer, self, x, parameters, layout)

    def begin_round(self, optimizer: torch.optim.Optimizer, round: int) -> None:
        """Give an optimizer that was made by this one the learning rate of a round."""
        if self.factor is not None:
            for group in optimizer.param_groups:
                group["lr"] = self.options["lr"] * self.factor(round)

    def beyond_sgd(self) -> str:
        return beyond_sgd(self.factory([torch.nn.Parameter(torch.zeros(1, 1))], **self.options))


@dataclass(slots=True)
class BoundOptimizer:
    """A local optimizer at work on one node's flat vector, layer by layer."""

    optimizer: torch.optim.Optimizer
    made_by: LocalOptimizer
    x: Tensor  # (d,) the vector that the parameters view
    parameters: list[torch.nn.Parameter]
    layout: Layout
    _gradient: Tensor | None = None
    _address: int = 0
    _blocks: list[tuple[Tensor, Tensor]] = field(default_factory=list)  # of bare SGD in main memory: x's and gradient's

    @property
    def lr(self) -> float:
        return float(self.optimizer.param_groups[0]["lr"])

    def begin_round(self, round: int) -> None:
        self.made_by.begin_round(self.optimizer, round)

    def decay_(self, gradient: Tensor) -> Tensor:
        decay = self.optimizer.param_groups[0]["weight_decay"]
        return gradient.add_(self.x, alpha=decay) if decay else gradient

    def step(self, gradient: Tensor, *, alike: bool = False) -> None:  # noqa: ARG002  it steps alike in any case
        """One step in place on `x` with the flat gradient `(d,)`, which some optimizers overwrite: clone it to keep."""
        if self.x.is_meta:  # a dry run has no numbers
            return
        if self.x.data_ptr() != self._address or gradient is not self._gradient:
            self._point_at(gradient)
        if not self._blocks:
            self.optimizer.step()
            return
        # What torch.optim.SGD does to each parameter, to the bit, without a dozen times as long for all around it.
        lr, decay = (self.optimizer.param_groups[0][option] for option in ("lr", "weight_decay"))
        for x, of_gradient in self._blocks:
            x.add_(of_gradient.add(x, alpha=decay) if decay else of_gradient, alpha=-lr)

    def _point_at(self, gradient: Tensor) -> None:
        """Make the parameters views of x, and what they are to be changed by of the gradient."""
        if self.x.data_ptr() != self._address:  # mixing moves it
            for parameter, block in zip(self.parameters, self.layout, strict=True):
                parameter.data = block.of(self.x)
            self._address = self.x.data_ptr()
        for parameter, block in zip(self.parameters, self.layout, strict=True):
            parameter.grad = block.of(gradient)
        self._gradient = gradient
        if self.made_by.is_bare_sgd and self.x.device.type == "cpu":
            grads = [parameter.grad for parameter in self.parameters]
            self._blocks = [(p.data, grad) for p, grad in zip(self.parameters, grads, strict=True) if grad is not None]


def beyond_sgd(optimizer: torch.optim.Optimizer) -> str:
    """What an optimizer does other than `x - lr (g + weight_decay x)`, in the user's words; empty where that is all."""
    if type(optimizer) is not torch.optim.SGD:
        return type(optimizer).__name__
    for group in optimizer.param_groups:
        for option in ("momentum", "maximize"):  # without momentum there is neither dampening nor nesterov
            if group[option]:
                return f"{option}={group[option]}"
    return ""
