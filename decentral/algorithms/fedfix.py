"""FedFix: the hub takes a step every so many seconds, along all that has come since the last one, and so is unbiased.

With x the hub's model, p_i the importance of node i, Delta_i what tau local steps have changed of the model that node i
was sent at step k_i, steps being at the times D, 2 D, 3 D, ...:

    x+ = x + sum_i d_i Delta_i    over those that have come since step k - 1

    unbiased     d_i = (k - k_i) p_i, which is ceil(tau_i / D) p_i where node i's jobs take tau_i seconds
    identical    d_i = p_i

Whoever's result was used is sent the new x. So a node takes part in every ceil(tau_i / D)-th step, and with these
weights as a mean in each by p_i: the fixed point is that of sum_i p_i f_i, however fast nodes are. With identical
weights it is that of sum_i (p_i / ceil(tau_i / D)) f_i, on the side of fast nodes. Here tau_i is what each job took.

    D   every_s    p_i   importance    k   state.changes

Staleness is k - k_i - 1, how many steps were taken meanwhile.

Reference: Fraboni, Vidal, Kameni and Lorenzi 2023 (JMLR, arXiv:2206.10189).
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from math import ceil
from typing import Literal, Self

from torch import Tensor

from decentral.algorithms.federated_job import FederatedJob
from decentral.algorithms.hub import HubState, Result
from decentral.errors import ConfigError
from decentral.peer import Letter, Peer
from decentral.topology.topology import Topology

ROUNDING = 1e-9
"""Of a number of steps: what comes at the very time of a step is part of it."""


@dataclass(slots=True)
class TimedState(HubState):
    next_step: int  # k, for what is held
    is_time: bool


@dataclass(frozen=True, kw_only=True)
class FedFix(FederatedJob):
    every_s: float  # D
    weights: Literal["unbiased", "identical"] = "unbiased"
    importance: Sequence[float] = ()

    def favors_fast(self) -> str:
        return "weights: identical" if self.weights == "identical" else ""

    def on(self, graph: Topology) -> Self:
        if self.importance and len(self.importance) != graph.nodes - 1:
            raise ConfigError(
                f"found {len(self.importance)} numbers of importance; required: one for each of the {graph.nodes - 1} "
                "nodes 1, 2, ..., since node 0 serves"
            )
        return super().on(graph)

    def init(self, x: Tensor, peer: Peer) -> TimedState:
        plain = super().init(x, peer)
        return TimedState(
            **{each.name: getattr(plain, each.name) for each in fields(plain)}, next_step=0, is_time=False
        )

    async def next_letter(self, state: HubState, peer: Peer) -> Letter | None:
        assert isinstance(state, TimedState)
        kinds, is_first = state.kinds(), not state.held
        step_s = state.next_step * self.every_s
        letter = await (peer.receive(kinds) if is_first else peer.receive_until(step_s, kinds))
        now_s = await peer.now()
        if is_first:
            state.next_step = max(ceil(now_s / self.every_s - ROUNDING), state.changes + 1)
        state.is_time = letter is None or (not is_first and now_s > step_s)
        return letter

    def due(self, state: HubState) -> list[Result]:
        assert isinstance(state, TimedState)
        return sorted(state.held, key=lambda result: result.node) if state.is_time else []

    def change(self, state: HubState, results: list[Result], peer: Peer) -> None:
        assert isinstance(state, TimedState)
        importance = self.importance or [1.0] * (peer.nodes - 1)
        state.changes = state.next_step
        for result in results:
            weight = importance[result.node - 1] / sum(importance)
            steps = result.delay(state)
            state.used(steps - 1)
            state.x.add_(result.vector, alpha=weight * (steps if self.weights == "unbiased" else 1))
