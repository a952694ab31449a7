"""The user's optimizer as the local optimizer of an algorithm."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.optim import Optimizer

from decentral.algorithms.local import beyond_sgd
from decentral.errors import ConfigError
from decentral.peer import Layout
from decentral.wrapping.flat_model import FlatModel

Closure = Callable[[], Tensor]
"""Evaluates the user's loss at the model as it is, with gradients, and returns it."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What the user's loop answered last: its gradients lie in the parameters' `grad`, as the loop left them."""

    gradient: Tensor  # (d,), the copy that the algorithm was given
    version: int  # of that copy: a higher one means that the algorithm wrote into it
    skip: bool  # an overflow under GradScaler: there is no gradient to step with
    loss: Tensor | None  # of the closure, where there is one
    closure: Closure | None


class UserOptimizer:
    """Steps the user's optimizer, with its own state, groups and hooks, on the parameters in the vector.

    A step with the very gradient that the user's loop gave leaves `grad` as it is: a parameter without one stays
    without. A step with another gradient lends that to the parameters for its length.
    """

    def __init__(self, optimizer: Optimizer, model: FlatModel) -> None:
        self._optimizer, self._model = optimizer, model
        closure = inspect.signature(type(optimizer).step).parameters.get("closure")
        self.needs_closure = closure is not None and closure.default is inspect.Parameter.empty
        self.answer: Answer | None = None

    def bind(self, x: Tensor, layout: Layout) -> "UserOptimizer":
        assert x is self._model.x
        assert layout is self._model.layout
        return self

    @property
    def lr(self) -> float:
        rates = {float(group["lr"]) for group in self._optimizer.param_groups}
        if len(rates) > 1:
            found = ", ".join(f"{rate:g}" for rate in sorted(rates))
            raise ConfigError(f"the optimizer's groups have learning rates {found}; this algorithm needs one for all")
        return rates.pop()

    def begin_round(self, round: int) -> None:
        """The user's own scheduler has set the learning rate."""

    def beyond_sgd(self) -> str:
        return beyond_sgd(self._optimizer)

    def decay_(self, gradient: Tensor) -> Tensor:
        """With each group's weight decay; a parameter without a gradient has none, as in torch's own step."""
        blocks = {
            id(parameter): block for parameter, block in zip(self._model.parameters, self._model.layout, strict=True)
        }
        for group in self._optimizer.param_groups:
            for parameter in group["params"]:
                block = blocks.get(id(parameter))
                if group["weight_decay"] and block is not None and parameter.grad is not None:
                    block.of(gradient).add_(block.of(self._model.x), alpha=group["weight_decay"])
        return gradient

    def step(self, gradient: Tensor, *, alike: bool = False) -> None:
        """One step in place on the model's vector with the flat gradient `(d,)`.

        Args:
            alike: all nodes take this very step: parameters that this node's own loss did not use take part.

        Raises:
            ConfigError: an optimizer that evaluates the loss itself, with a gradient that is not this node's own.
        """
        answer, model = self.answer, self._model
        model.point_at(model.x)
        if not alike and answer is not None and gradient is answer.gradient and gradient._version == answer.version:
            if not answer.skip:
                self._step_as_answered(answer)
            return
        if self.needs_closure:
            raise ConfigError(
                f"{type(self._optimizer).__name__} evaluates this node's loss itself, but the algorithm steps with "
                "another gradient than this node's own; use an optimizer that steps without a closure"
            )
        with model.gradients_from(gradient, absent=answer is not None and answer.skip, whole=alike):
            self._optimizer.step()

    def _step_as_answered(self, answer: Answer) -> None:
        if not self.needs_closure:
            self._optimizer.step()
            return
        assert answer.closure is not None
        assert answer.loss is not None
        evaluated = iter([answer.loss])  # the first evaluation has been made: it is the answer
        closure = answer.closure

        def again() -> Tensor:
            loss = next(evaluated, None)
            return closure() if loss is None else loss

        with torch.enable_grad():
            self._optimizer.step(again)  # type: ignore[arg-type]
