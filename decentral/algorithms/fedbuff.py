"""FedBuff: the hub collects what K nodes have changed, and then takes one step along the mean; nobody waits for it.

With x the hub's model, Delta_j what tau local steps have changed of the model that a node was sent, s_j the number of
changes of x since then (`hub`):

    x+ = x + gamma (1/K) sum_j w(s_j) Delta_j     over the K that have come,     w(s) = (1 + s)^-1/2, or 1

A node is sent x as it is at once, whether a step is near or not. All that has come when the hub looks counts, so there
may be more than K, and K is their number then. With K = M, equally fast nodes and gamma = 1 this is `fedavg`. With
`max_delay` the hub puts its step off until no job that is out would be older than that after it.

Where nodes hold different data, w turns the model to those of fast nodes.

    K   buffer    gamma   server_lr    tau   every

Reference: Nguyen et al. 2022 (arXiv:2106.06639), Algorithm 1; facebookresearch/FLSim for w, which it divides by
that of the mean delay.
"""

from dataclasses import dataclass
from typing import ClassVar

from decentral.algorithms.federated_job import FederatedJob
from decentral.algorithms.hub import HubState, Result
from decentral.peer import Peer


@dataclass(frozen=True, kw_only=True)
class FedBuff(FederatedJob):
    takes_all: ClassVar[bool] = True

    buffer: int = 10  # K
    server_lr: float = 1.0  # gamma
    discount: bool = True

    def favors_fast(self) -> str:
        return super().favors_fast() or ("discount: true, by which late changes count less" if self.discount else "")

    def due(self, state: HubState) -> list[Result]:
        if len(state.held) < self.buffer:
            return []
        fits = self.max_delay is None or all(state.changes + 1 - begun <= self.max_delay for begun in state.out())
        return sorted(state.held, key=lambda result: result.node) if fits else []

    def change(self, state: HubState, results: list[Result], peer: Peer) -> None:  # noqa: ARG002
        for result in results:
            delay = result.delay(state)
            state.used(delay)
            weight = (1 + delay) ** -0.5 if self.discount else 1.0
            state.x.add_(result.vector, alpha=self.server_lr * weight / len(results))
        state.changes += 1
