"""DC-ASGD: asynchronous SGD at a hub that corrects late gradients for what the model has moved since.

With g the gradient at x' = x_{k-tau_k}, eta the learning rate, and products, quotients and roots by component:

    x_{k+1} = x_k - eta (g + lambda_k g g (x_k - x'))

    constant    lambda_k = lambda
    adaptive    lambda_k = lambda / sqrt(s_k + 1e-7),    s_k = m s_{k-1} + (1 - m) g g,    s_{-1} = 0

g g stands for the diagonal of the Hessian, which it is in expectation for a model that has learned the distribution of
its labels, such as a softmax under cross-entropy; for a squared loss it is no more than a guess. Weight decay is added
to g before. The hub keeps x' of each job that is out: C vectors.

    lambda   strength    m   decay    s   state.squares    x'   Job.start

Reference: Zheng et al. 2017 (arXiv:1609.08326); the default strength is MXNet's 0.04 where it is constant.
"""

from dataclasses import dataclass, fields
from typing import ClassVar

import torch
from torch import Tensor

from decentral.algorithms.async_sgd import AsyncSGD
from decentral.algorithms.hub import HUB, HubState, Result
from decentral.peer import Peer


@dataclass(slots=True)
class CompensatedState(HubState):
    squares: Tensor  # (d,) s at the hub of the adaptive variant, else empty


@dataclass(frozen=True, kw_only=True)
class DCASGD(AsyncSGD):
    looks_back: ClassVar[bool] = True

    strength: float | None = None  # lambda
    adaptive: bool = False
    decay: float = 0.95  # m

    def init(self, x: Tensor, peer: Peer) -> CompensatedState:
        plain = super().init(x, peer)
        squares = torch.zeros_like(x) if self.adaptive and peer.node == HUB else torch.zeros(0, device=x.device)
        return CompensatedState(**{each.name: getattr(plain, each.name) for each in fields(plain)}, squares=squares)

    def change(self, state: HubState, results: list[Result], peer: Peer) -> None:
        [result] = results
        assert isinstance(state, CompensatedState)
        assert result.job.start is not None
        g = state.local.decay_(result.vector)
        moved = torch.sub(state.x, result.job.start)
        strength = (2.0 if self.adaptive else 0.04) if self.strength is None else self.strength
        if self.adaptive:
            state.squares.mul_(self.decay).addcmul_(g, g, value=1 - self.decay)
            moved.div_((state.squares + 1e-7).sqrt_())
        correction = moved.mul_(g).mul_(g)
        delay = result.delay(state)
        state.used(delay)
        state.x.add_(
            g.add_(correction, alpha=strength), alpha=-state.local.lr * self.factor(delay, self.jobs_out(peer))
        )
        state.changes += 1
