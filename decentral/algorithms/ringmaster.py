"""Ringmaster ASGD: asynchronous SGD at a hub that drops every gradient whose delay has reached R.

    tau_k < R      x_{k+1} = x_k - eta g(x_{k-tau_k})
    else           the gradient is dropped, k stays, and its node begins again at x_k

R = 1 is SGD at the fastest node, R beyond every delay is `async-sgd` with the constant rule, to the bit; the best one
is in the order of sigma^2 / eps, the variance of gradients over the wanted squared norm of the mean gradient: then no
method that knows how fast each node is takes less time in order of magnitude. In the paper's second version the
computation stops when its delay reaches R; here a gradient that is under way is computed to its end, and dropped.

Where nodes hold different data, dropping turns the model to those of fast nodes.

    R   drop_after

Reference: Maranjyan, Tyurin and Richtarik 2025 (arXiv:2501.16168).
"""

from dataclasses import dataclass

from decentral.algorithms.async_sgd import AsyncSGD
from decentral.algorithms.hub import HubState, Result
from decentral.peer import Peer


@dataclass(frozen=True, kw_only=True)
class Ringmaster(AsyncSGD):
    drop_after: int  # R

    def favors_fast(self) -> str:
        return f"drop_after: {self.drop_after}, by which late gradients are dropped"

    def change(self, state: HubState, results: list[Result], peer: Peer) -> None:
        [result] = results
        if result.delay(state) < self.drop_after:
            super().change(state, results, peer)
