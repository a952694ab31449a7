"""RelaySGD: on a tree every node's model reaches every other, relayed once along each link; there is no gossip matrix.

With N(i) the neighbors of node i, n the number of nodes, eta the learning rate, g_i(.) node i's minibatch gradient, and
m = 0, c = 0 before the first round:

    h_i    = x_i - eta g_i(x_i)
    m_ij   = h_i + sum_{k in N(i), k != j} m_ki;      c_ij = 1 + sum_{k in N(i), k != j} c_ki       sent to each j
    x_i+   = (h_i + sum_j m_ji) / (1 + sum_j c_ji)                                                  arrived

with m_ki and c_ki those of the round before in the second line, of this round in the third. So x_i+ is the mean of the
h of all nodes, each as old as the way from there is long, and once the longest way is gone the count is n. Until then
something else may stand for the p = n - 1 - sum_j c_ji models that have not come yet:

    x_i+   = (h_i + sum_j m_ji + p h_i) / n            own
    x_i+   = (h_i + sum_j m_ji + p x^0) / n            start
    x_i+   = x_i + (u_i + sum_j m_ji) / n              updates: RelaySGD/Grad, with u = h - x relayed in place of h

`- eta g` stands for the step of whichever local optimizer is chosen. Where models are relayed, nodes that have heard
each other agree on where all rest, so unequal data leave no bias. Where updates are, each step is taken by all, but by
one after the other: nodes differ by those on their way, a bias of O(eta), and nothing takes back what rounding adds.

With several trees, turns of the topology's schedule, each relays its own part of x. In a binary tree there are nodes
that send the model three times; with two that have each other's inner nodes for leaves, none sends over four halves.

    m_ki, c_ki of the round before   heard, counts of each tree      h or u   state.own

Reference: Vogels, He, Koloskova, Karimireddy, Lin, Stich and Jaggi 2021 (arXiv:2110.04175), Algorithm 1, which is
arrived; start is the authors' code for deep learning, own the one in their README.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar, Literal

import torch
from torch import Tensor

from decentral.algorithms.algorithm import Algorithm, State, buffer
from decentral.peer import Payload, Peer, Ticket, first_tensors, weighted_sum
from decentral.topology.stochastic import Kind
from decentral.topology.sums import check_relay_sum
from decentral.topology.topology import Topology

Form = Literal["arrived", "own", "start", "updates"]


@dataclass(slots=True)
class Branches:
    """What a node knows of one tree, of its part of the vector: by neighbor, ascending."""

    heard: dict[int, Tensor]  # (part,) m_ki
    counts: dict[int, Tensor]  # () c_ki, int64
    sent: dict[int, Tensor]  # (part,) scratch: m_ij


@dataclass(slots=True)
class RelayState(State):
    own: Tensor  # (d,) scratch: h or u
    before: Tensor | None  # (d,) x^0 of the form start; x before the step of updates
    trees: list[Branches]


@dataclass(frozen=True, kw_only=True)
class RelaySGD(Algorithm):
    mixing: ClassVar[Kind] = "column-stochastic"  # any
    uses_weights: ClassVar[bool] = False

    form: Form = "arrived"
    trees: int = 1

    def suited(self, graph: Topology) -> tuple[Topology, str]:
        check_relay_sum(graph, self.trees)
        return graph, ""

    def init(self, x: Tensor, peer: Peer) -> RelayState:
        return RelayState(
            x=x,
            local=self.local.bind(x, peer.layout),
            own=buffer(x),
            before=x.clone() if self.form in ("start", "updates") else None,
            trees=[self._branches(x, peer, tree) for tree in range(self.trees)],
        )

    def _branches(self, x: Tensor, peer: Peer, tree: int) -> Branches:
        neighbors, part = peer.row(tree).sources, buffer(x[self._part(x, tree)])
        return Branches(
            {j: part.clone() for j in neighbors},
            {j: torch.zeros((), dtype=torch.int64, device=x.device) for j in neighbors},
            {j: part.clone() for j in neighbors},
        )

    def _part(self, x: Tensor, tree: int) -> slice:
        size = -(-x.numel() // self.trees)
        return slice(min(tree * size, x.numel()), min((tree + 1) * size, x.numel()))

    async def step(self, state: RelayState, peer: Peer) -> Tensor:
        loss, gradient = await peer.gradient(state.x)
        if self.form == "updates":
            assert state.before is not None
            state.before.copy_(state.x)
            state.local.step(gradient)
            torch.sub(state.x, state.before, out=state.own)
        else:
            state.local.step(gradient)
            state.own.copy_(state.x)
        tickets = [await self._relay(branches, state, peer, tree) for tree, branches in enumerate(state.trees)]
        for tree, (branches, ticket) in enumerate(zip(state.trees, tickets, strict=True)):
            received = await peer.collect(ticket)
            self._average(state, peer, tree, received)
            for j, (message, count) in received.items():
                branches.heard[j].copy_(message)
                branches.counts[j].copy_(count)
        return loss

    async def _relay(self, branches: Branches, state: RelayState, peer: Peer, tree: int) -> Ticket:
        """Send each neighbor what all but itself have told."""
        sum_but_one(state.own[self._part(state.x, tree)], branches.heard, out=branches.sent)
        counted = sum(branches.counts.values()) + 1
        payloads: dict[int, Payload] = {j: (sent, counted - branches.counts[j]) for j, sent in branches.sent.items()}
        return await peer.post_each(payloads, tree)

    def _average(self, state: RelayState, peer: Peer, tree: int, received: Mapping[int, Payload]) -> None:
        part = self._part(state.x, tree)
        x, own = state.x[part], state.own[part]
        counted = sum(count for _, count in received.values()) + 1
        filled_in = self._filled_in(state, part, peer.nodes - counted)
        vectors = first_tensors(peer.node, own, received)
        total = weighted_sum(dict.fromkeys(vectors, 1.0), vectors, out=own)
        if filled_in is not None:
            total.add_(filled_in)
        if self.form == "updates":
            assert state.before is not None
            torch.add(state.before[part], total, alpha=1 / peer.nodes, out=x)
        else:
            torch.div(total, counted if self.form == "arrived" else peer.nodes, out=x)

    def _filled_in(self, state: RelayState, part: slice, missing: Tensor | int) -> Tensor | None:
        if self.form == "own":
            return state.own[part] * missing
        if self.form == "start":
            assert state.before is not None
            return state.before[part] * missing
        return None


def sum_but_one(own: Tensor, heard: Mapping[int, Tensor], out: Mapping[int, Tensor]) -> None:
    """`out[j] <- own + sum of heard[k] over k != j`, for each j, in three passes each however many there are.

    Args:
        own: `(d,)`
        heard: `(d,)` vectors.
        out: a `(d,)` vector for each of these, none of which is another.
    """
    order = [*heard]
    for j, behind in zip(reversed(order), [None, *reversed(order)], strict=False):  # own, and those behind j
        if behind is None:
            out[j].copy_(own)
        else:
            torch.add(out[behind], heard[behind], out=out[j])
    before: Tensor | None = None
    for previous, j in pairwise(order):  # and those before it
        before = heard[previous] if before is None else before + heard[previous]
        out[j].add_(before)
