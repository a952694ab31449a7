"""SWIFT, wait-free gossip: a node averages with the models that its neighbors have sent it last, however old they are.

With W the mixing matrix, eta the learning rate, g_i(.) node i's minibatch gradient and x_j' the newest model that node
i has of its neighbor j, node i again and again, without waiting for anybody:

    pushes x_i to its neighbors;    g = g_i(x_i)
    in every tau-th step            x_i+ = w_ii x_i + sum_j w_ij x_j' - eta g
    in the others                   x_i+ = x_i - eta g

`- eta g` stands for the step of whichever local optimizer is chosen. The weight of a neighbor of which nothing has come
yet stays with x_i. Where all are equally fast and nothing takes time on the wire, x_j' is x_j of the same step, and
this is D-SGD in the order adapt-while-communicate, to the bit.

With `memory` x_j' stays until a newer one comes; without, each counts once, so that a slow neighbor pulls less, and no
copies of neighbors' models are kept.

A node that steps twice as often averages twice as often, so that each of its steps lasts half as long: with `memory`
all losses count alike in the long run, however fast their nodes are, where W is symmetric. With `weights: ccs` W is
made for a loss of node i that counts as p_i, its influence, and where p_i are the shares of all steps that nodes make,
the mean of all models is kept in expectation too (`topology.influence`).

    x_j'    state.known[j]    w_ij    coefficients, or the topology's    p_i    influence

Reference: Bornstein, Rabbani, Wang, Bedi and Huang 2023 (ICLR, arXiv:2210.14026), Algorithms 1 and 2.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, Self

import torch
from torch import Tensor

from decentral.algorithms.asynchronous import Asynchronous, AsynchronousState
from decentral.errors import ConfigError
from decentral.peer import Arrival, Peer, weighted_sum
from decentral.topology.influence import weights_by_influence
from decentral.topology.lazy import refuse_changing
from decentral.topology.topology import Topology


@dataclass(slots=True)
class SwiftState(AsynchronousState):
    drift: Tensor  # (d,) scratch: what averaging changes, until the step is taken
    known: dict[int, Tensor]  # (d,) x_j' by neighbor


@dataclass(frozen=True, kw_only=True)
class Swift(Asynchronous):
    every: int = 1  # tau
    memory: bool = True
    weights: Literal["topology", "ccs"] = "topology"
    influence: Sequence[float] = ()
    coefficients: Sequence[Mapping[int, float]] = ()  # of each node, once it knows its graph

    @property
    def uses_weights(self) -> bool:
        return self.weights == "topology"

    def suited(self, graph: Topology) -> tuple[Topology, str]:
        refuse_changing(graph, "an asynchronous method whose nodes push to all neighbors")
        return graph, ""

    def on(self, graph: Topology) -> Self:
        if self.weights == "topology":
            if self.influence:
                raise ConfigError("found influence, which the topology's weights know nothing of; add weights: ccs")
            return self
        if graph.schedule.kind != "symmetric":
            raise ConfigError(f"found one-way links in {graph.name}; weights: ccs needs links in both directions")
        return replace(self, coefficients=weights_by_influence(graph, self.influence))

    def init(self, x: Tensor, peer: Peer) -> SwiftState:
        local = self.local.bind(x, peer.layout)
        return SwiftState(x=x, local=local, staleness=[], came={}, drift=torch.zeros_like(x), known={})

    async def step(self, state: SwiftState, peer: Peer) -> Tensor:
        await peer.push((state.x,))
        loss, gradient = await peer.gradient(state.x)
        averages = (peer.round + 1) % self.every == 0
        if averages:
            await self._hear(state, peer)
            self._average(state, peer)
        state.local.step(gradient)
        if averages:
            state.x.add_(state.drift)
        return loss

    async def serve(self, state: SwiftState, peer: Peer) -> Tensor:
        if self.max_delay is not None:  # else nobody waits for more
            await peer.push((state.x,), last=True)
        while True:  # where the run goes on after a cut, it is with the newest
            self._note(state, await peer.poll((state.x,), wait=True), peer)

    async def _hear(self, state: SwiftState, peer: Peer) -> None:
        """Take what has come; wait where one neighbor's is older than it may be."""
        if not self.memory:
            state.known.clear()
        self._note(state, await peer.poll((state.x,)), peer)
        while self.is_too_old(state, peer):
            self._note(state, await peer.poll((state.x,), wait=True), peer)

    def _note(self, state: SwiftState, arrivals: Mapping[int, Arrival], peer: Peer) -> None:
        state.heard(arrivals, peer)
        state.known |= {sender: arrival.payload[0] for sender, arrival in arrivals.items()}

    def _average(self, state: SwiftState, peer: Peer) -> None:
        weights = dict(peer.row().weights if self.weights == "topology" else self.coefficients[peer.node])
        for neighbor in peer.row().sources:
            if neighbor in state.known:
                state.used(peer.round - state.came[neighbor])
            else:
                weights[peer.node] += weights.pop(neighbor)
        weights[peer.node] -= 1
        weighted_sum(weights, {peer.node: state.x} | state.known, out=state.drift)
