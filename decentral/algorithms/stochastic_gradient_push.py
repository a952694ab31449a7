"""Stochastic gradient push, SGP, and overlap SGP: SGD on directed graphs, whose mixing matrices only keep sums.

With A the mixing matrix of round k, whose columns sum to 1, eta the learning rate, g_i(.) node i's minibatch gradient,
u a sum, w its weight, 1 before the first round, and z = u / w the model:

    y_i    = u_i - eta g_i(z_i)
    u_i+   = a_ii y_i + sum_{j != i} a_ij y_j;    w_i+ = a_ii w_i + sum_{j != i} a_ij w_j;    z_i+ = u_i+ / w_i+

Where rows do not sum to 1, u drifts off the mean of all by a factor that w drifts by too; where they do, w stays 1 and
this is D-SGD, adapt-then-combine. `- eta g` stands for the step of whichever local optimizer is chosen, taken at z,
with its momentum, and with weight decay of z. The sum of u over all nodes moves by the sum of their steps alone.

x is z: it is what gradients, evaluations, checkpoints and users see. u = w z is made of it inside the step.

With delay = tau, what others sent in round k - tau comes in place of what they send in round k: a_ij, y_j and w_j are
those of that round, and a_ii y_i is of round k all the same. The sender keeps what it will send, and posts it before
the gradient of the round in which it is due, which hides the wire from tau = 1 on; a greater tau hides no more, and
shows what staleness costs. So nothing is under way between rounds: the sum of u over nodes and over all that they keep
is the invariant, and a checkpoint holds both. The paper's own tau bounds the delay of messages that come when they
come; here each comes exactly tau rounds late, so runs repeat bit for bit.

    w    state.weight    z    state.x    y, w, of this round and those under way    state.told

w is float64 whatever x is: its relative error is that of all numbers of z at once, it may fall far below 1 where little
is received, and it adds 8 bytes to a message.

Reference: Assran, Loizou, Ballas and Rabbat 2019 (arXiv:1811.10792), Algorithms 1 (SGP) and 2 (overlap SGP).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from decentral.algorithms.algorithm import Algorithm, State
from decentral.peer import Payload, Peer, weighted_sum
from decentral.topology.stochastic import Kind
from decentral.topology.sums import check_push_sum
from decentral.topology.topology import Topology


@dataclass(slots=True)
class PushState(State):
    weight: Tensor  # () w, float64
    told: list[Payload]  # (d,) y and () w of the last tau rounds and of this one, round k at place k mod (tau + 1)


@dataclass(frozen=True, kw_only=True)
class StochasticGradientPush(Algorithm):
    mixing: ClassVar[Kind] = "column-stochastic"

    delay: int = 0  # tau

    def suited(self, graph: Topology) -> tuple[Topology, str]:
        check_push_sum(graph, self.delay)
        return graph, ""

    def init(self, x: Tensor, peer: Peer) -> PushState:
        one = x.new_ones((), dtype=torch.float64)
        told: list[Payload] = [(torch.zeros_like(x), one.clone()) for _ in range(self.delay + 1)]
        return PushState(x=x, local=self.local.bind(x, peer.layout), weight=one, told=told)

    async def step(self, state: PushState, peer: Peer) -> Tensor:
        if self.delay:
            return await self._overlapped(state, peer)
        loss = await self._half_step(state, peer)
        own = state.told[0]
        _add_up(state, peer.row().weights, {peer.node: own, **await peer.exchange(own)})
        return loss

    async def _half_step(self, state: PushState, peer: Peer) -> Tensor:
        place = peer.round % len(state.told)
        half, _ = state.told[place]
        loss, gradient = await peer.gradient(state.x)
        # y = w z + (z' - z), with z' what the optimizer makes of z: where w is 1 that is z' to the bit.
        torch.mul(state.x, state.weight - 1, out=half)
        state.local.step(gradient)
        state.told[place] = half.add_(state.x), state.weight
        return loss

    async def _overlapped(self, state: PushState, peer: Peer) -> Tensor:
        due = peer.round - self.delay
        ticket = await peer.post(state.told[due % len(state.told)], due) if due >= 0 else None
        loss = await self._half_step(state, peer)
        received = await peer.collect(ticket) if ticket is not None else {}
        late = {j: peer.row(due).weights[j] for j in received}
        own = state.told[peer.round % len(state.told)]
        _add_up(state, {peer.node: peer.row().weights[peer.node], **late}, {peer.node: own, **received})
        return loss


def _add_up(state: PushState, weights: Mapping[int, float], told: Mapping[int, Payload]) -> None:
    """u+ and w+ from y and w of the node and of those it hears, by their weights; and z+, which x becomes."""
    sums, masses = ({j: payload[place] for j, payload in told.items()} for place in (0, 1))
    state.weight = weighted_sum(weights, masses, out=torch.empty_like(state.weight))
    weighted_sum(weights, sums, out=state.x).div_(state.weight)
