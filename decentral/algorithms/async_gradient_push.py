"""Asynchronous gradient push: SGP whose nodes add what has come and wait for nobody; no mass is lost on the way.

With A a mixing matrix whose columns sum to 1, eta the learning rate, g_i(.) node i's minibatch gradient, u a sum, w its
weight, 1 at the start, and z = u / w the model, node i again and again:

    y = w z';    z' = z - eta g_i(z)
    pushes (y, w) to its neighbors;   those add it to what they have not looked at
    u <- a_ii y + sum_j a_ij Y_j;     w <- a_ii w + sum_j a_ij W_j;     z = u / w

(Y_j, W_j) is the sum of all that j has pushed since the node looked last, none where nothing came. The sum of w over
all nodes and all that is under way stays n, and that of u moves by the nodes' steps alone, however late things come.
`- eta g` stands for the step of whichever local optimizer is chosen, taken at z.

A node's step counts in the sum by its weight w: a node that is fast gives away its weight faster than it gets some, and
so counts less per step, in just the measure in which it makes more of them. Without that (`weigh` false: y = w z + z' -
z, as in SGP) a node with little weight would move its model by eta g / w at once. Where all are equally fast and
nothing takes time on the wire, this is SGP to the bit, with `weigh` where rows sum to 1, and without on any graph.

A node whose weight has fallen below LEAST keeps what it has until something comes: else it would be 0 some day.

    w    state.weight    z    state.x

References: Assran and Rabbat 2020 (arXiv:1803.08950), Algorithm 2, for push-sum with delays and sums; Assran, Loizou,
Ballas and Rabbat 2019 (arXiv:1811.10792) for SGP. Weighing steps by w is this program's own.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from decentral.algorithms.asynchronous import Asynchronous, AsynchronousState
from decentral.peer import Arrival, Payload, Peer, weighted_sum
from decentral.topology.lazy import refuse_changing
from decentral.topology.stochastic import Kind
from decentral.topology.sums import check_push_sum
from decentral.topology.topology import Topology

LEAST = 1e-6


@dataclass(slots=True)
class AsyncPushState(AsynchronousState):
    weight: Tensor  # () w, float64
    half: Tensor  # (d,) scratch: y


@dataclass(frozen=True, kw_only=True)
class AsyncGradientPush(Asynchronous):
    mixing: ClassVar[Kind] = "column-stochastic"
    staleness_counts: ClassVar[str] = "a node's own steps without anything from the neighbor"

    weigh: bool = True

    def suited(self, graph: Topology) -> tuple[Topology, str]:
        refuse_changing(graph, "an asynchronous method whose nodes push to all neighbors")
        check_push_sum(graph, 0)
        return graph, ""

    def init(self, x: Tensor, peer: Peer) -> AsyncPushState:
        local, one = self.local.bind(x, peer.layout), x.new_ones((), dtype=torch.float64)
        return AsyncPushState(x=x, local=local, staleness=[], came={}, weight=one, half=torch.zeros_like(x))

    async def step(self, state: AsyncPushState, peer: Peer) -> Tensor:
        loss, gradient = await peer.gradient(state.x)
        if self.weigh:
            state.local.step(gradient)
            torch.mul(state.x, state.weight, out=state.half)
        else:  # y = w z + (z' - z): where w is 1 that is z' to the bit
            torch.mul(state.x, state.weight - 1, out=state.half)
            state.local.step(gradient)
            state.half.add_(state.x)
        gives = state.weight.is_meta or state.weight.item() >= LEAST
        own: Payload = (state.half, state.weight)
        if gives:
            await peer.push(own, adds=True)
        came = self._noted(state, await peer.poll(own), peer)
        self._add_up(state, peer, peer.row().weights[peer.node] if gives else 1.0, own, came)
        while self.is_too_old(state, peer):
            await self._take_more(state, peer)
        return loss

    async def serve(self, state: AsyncPushState, peer: Peer) -> Tensor:
        if self.max_delay is not None:  # else nobody waits for more
            nothing = torch.zeros_like(state.half), torch.zeros_like(state.weight)
            await peer.push(nothing, adds=True, last=True)
        while True:
            await self._take_more(state, peer)

    async def _take_more(self, state: AsyncPushState, peer: Peer) -> None:
        """Wait for something, and add it to the sum as it is."""
        own = torch.mul(state.x, state.weight, out=state.half), state.weight
        self._add_up(state, peer, 1.0, own, self._noted(state, await peer.poll(own, wait=True), peer))

    def _noted(self, state: AsyncPushState, arrivals: Mapping[int, Arrival], peer: Peer) -> dict[int, Payload]:
        """What has come, with a count of how long before the node had heard from its sender."""
        for sender in arrivals:
            state.used(peer.round - state.came.get(sender, -1) - 1)
        state.heard(arrivals, peer)
        return {sender: arrival.payload for sender, arrival in arrivals.items()}

    def _add_up(
        self, state: AsyncPushState, peer: Peer, kept: float, own: Payload, came: Mapping[int, Payload]
    ) -> None:
        """u and w from what is kept of the node's own and what has come; and z."""
        row = peer.row().weights
        weights = {peer.node: kept} | {sender: row[sender] for sender in came}
        sums, masses = ({j: part[place] for j, part in {peer.node: own, **came}.items()} for place in (0, 1))
        state.weight = weighted_sum(weights, masses, out=torch.empty_like(state.weight))
        weighted_sum(weights, sums, out=state.x).div_(state.weight)
