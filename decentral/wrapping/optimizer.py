"""The optimizer that the user's loop steps: to torch one of its own, with a round of the algorithm in its `step`."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from decentral.errors import ConfigError
from decentral.wrapping.rounds import Rounds
from decentral.wrapping.user_optimizer import UserOptimizer


class GossipOptimizer(Optimizer):
    """Shares groups, state and checkpoint of the user's optimizer; LR schedulers and GradScaler take it as their own.

    Attributes:
        inner: the user's optimizer, which takes the local steps.
    """

    # GradScaler then calls `step` after an overflow too, where it would else leave the neighbors waiting.
    _step_supports_amp_scaling = True

    def __init__(self, inner: Optimizer, rounds: Rounds, local: UserOptimizer) -> None:
        self.inner, self._rounds, self._local = inner, rounds, local
        # What Optimizer.__init__ sets up, except for groups and state, which are the inner one's.
        hooks = {name: value for name, value in vars(inner).items() if "state_dict" in name}
        self.__setstate__({"defaults": inner.defaults, **hooks})

    @property
    def param_groups(self) -> list[dict[str, Any]]:  # type: ignore[override]
        return self.inner.param_groups

    @property
    def state(self) -> Any:  # type: ignore[override]
        return self.inner.state

    def begin_round(self) -> None:
        """Begin the next round now, where its loss is computed without a forward pass of the wrapped model itself."""
        self._rounds.begin()

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One round with the gradients in the parameters' `grad`: gossip, and the local step in it.

        Args:
            closure: computes the loss with its gradients and returns it; optimizers such as LBFGS need one.

        Returns:
            What the closure returned, or None.

        Raises:
            ConfigError: the model changed since it was wrapped, or the optimizer needs a closure.
            LostNeighborError: a neighbor died or stayed silent.
        """
        if closure is None and self._local.needs_closure:
            raise ConfigError(f"{type(self.inner).__name__} evaluates the loss itself; use optimizer.step(closure)")
        loss = None
        if closure is None:
            self._rounds.begin_after_the_fact()
        else:
            self._rounds.begin()
            with torch.enable_grad():
                loss = closure()
        self._rounds.answer(loss if isinstance(loss, Tensor) else None, closure, self._overflowed())
        return loss

    def _overflowed(self) -> bool:
        """Take GradScaler's scale off the gradients, where it has not been; whether it found them infinite or NaN."""
        if bool(getattr(self, "found_inf", False)):
            return True
        scale: Tensor | None = getattr(self, "grad_scale", None)
        if scale is not None:
            inverse = scale.double().reciprocal().float()  # in GradScaler's own precision
            for group in self.param_groups:
                for parameter in group["params"]:
                    if parameter.grad is not None:
                        parameter.grad.mul_(inverse)
        return False

    def zero_grad(self, set_to_none: bool = True) -> None:
        self.inner.zero_grad(set_to_none)

    def state_dict(self) -> dict[str, Any]:
        """The user's optimizer's own; `decentral.state_dict` has what the algorithm carries beside it."""
        return self.inner.state_dict()

    def load_state_dict(self, state_dict: Any) -> None:
        self.inner.load_state_dict(state_dict)

    def add_param_group(self, param_group: dict[str, Any]) -> None:  # noqa: ARG002
        raise ConfigError(
            "found a parameter group added after decentral.wrap; the vector that nodes exchange is fixed by then: "
            "add all groups before wrapping"
        )

    def __getstate__(self) -> dict[str, Any]:
        raise TypeError("a wrapped optimizer holds connections and cannot be copied or pickled; save its state_dict()")
