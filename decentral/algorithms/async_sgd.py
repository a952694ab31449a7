"""Asynchronous SGD at a hub: each gradient changes the model as soon as it comes, however old its point is by then.

With tau_k the delay of the gradient by which the hub changes its model x for the k-th time (`hub`), eta the learning
rate and C the number of jobs that are out:

    x_{k+1} = x_k - eta_k g(x_{k-tau_k})

    constant      eta_k = eta
    mishchenko    eta_k = eta C / max(C, tau_k)
    koloskova     eta_k = eta where tau_k <= C, else eta / tau_k

The last is within what Theorem 8 allows, min(eta, 1 / (4 L tau_k)), for every eta that it allows, eta <= 1 / (4 L).
These rules keep one gradient that comes very late from undoing all that was reached; they do not make a greater eta
stable. With C equally fast nodes every tau_k is C - 1, and on a quadratic of curvature L all of them converge below,
and diverge above, exactly eta L = 2 sin(pi / (2 (2 (C - 1) + 1))).

Where nodes hold different data, whatever weighs by delay turns the model to those of fast nodes.

The hub takes the step itself. With one node beside it this is SGD, to the bit.

References: Mishchenko et al. 2022 (arXiv:2206.07638), whose code has these steps; Koloskova et al. 2022
(arXiv:2206.08307), Theorem 8.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor

from decentral.algorithms.hub import Hub, HubState, Result
from decentral.peer import Peer


@dataclass(frozen=True, kw_only=True)
class AsyncSGD(Hub):
    owns_step: ClassVar[bool] = True

    rule: Literal["constant", "mishchenko", "koloskova"] = "constant"

    def favors_fast(self) -> str:
        return super().favors_fast() or (f"rule: {self.rule}" if self.rule != "constant" else "")

    async def work(self, state: HubState, peer: Peer) -> tuple[Tensor, Tensor | None]:
        return await peer.gradient(state.x)

    def change(self, state: HubState, results: list[Result], peer: Peer) -> None:
        [result] = results
        delay = result.delay(state)
        state.used(delay)
        gradient = state.local.decay_(result.vector)
        state.x.add_(gradient, alpha=-state.local.lr * self.factor(delay, self.jobs_out(peer)))
        state.changes += 1

    def factor(self, delay: int, jobs: int) -> float:
        """eta_k / eta."""
        if self.rule == "mishchenko":
            return jobs / max(jobs, delay)
        if self.rule == "koloskova":
            return 1.0 if delay <= jobs else 1 / delay
        return 1.0
