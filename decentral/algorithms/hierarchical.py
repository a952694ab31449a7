"""Gossip between groups: inside each, nodes average by all-reduce; between them, models mix on a graph of groups.

With N groups of k members, W the (N, N) mixing matrix of the groups, and g_m(.) member m's minibatch gradient:

    g_G(x) = (1/k) sum_{m in G} g_m(x)                         inside, by all-reduce, in every round
    x_G+   = sum_H w_GH (x_H - eta g_H(x_H))                   between, adapt-then-combine; the other orders as in dsgd

All members of a group hold the same model, so this is D-SGD on the graph of groups with the groups' mean gradients. It
is made for hosts of k GPUs each: what is inside a group goes over the host's own links. Node n is member n mod k of
group n div k, as launchers number the ranks of hosts. What travels between the groups, for d numbers and degree D:

    leaders   member 0 exchanges its model with the other leaders, D d, and spreads the result inside by an all-reduce
              to which the others add zeros
    ranks     each member exchanges with those of its place, D d each and k D d in all; nothing is spread
    slices    each exchanges its k-th part with those of its place, D d / k each and D d in all; an all-reduce, to
              which each adds zeros outside its part, puts the parts together

Spreading is exact whatever the order of the sum, for all but one of its terms are 0; where k is no power of two the
mean rounds once. The drift of adapt-while-communicate is spread in place of the model.

Reference: Lin, Stich, Patel and Jaggi 2020 (arXiv:1808.07217), whose hierarchical local SGD averages inside a host more
often than between hosts; there all hosts average, here they gossip.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from decentral.algorithms.algorithm import Algorithm, State
from decentral.algorithms.dsgd import Order
from decentral.peer import Peer

Between = Literal["leaders", "ranks", "slices"]


@dataclass(slots=True)
class HierarchicalState(State):
    drift: Tensor | None  # (d,) of adapt-while-communicate: what mixing changes, until the step is taken
    part: Tensor | None  # (ceil(d / k),) of slices: my part of the model, zeros behind its end
    whole: Tensor | None  # (d,) of leaders and slices: what I add to the sum that is spread


@dataclass(frozen=True, kw_only=True)
class Hierarchical(Algorithm):
    group: int = 1  # k
    between: Between = "leaders"
    order: Order = "adapt-then-combine"
    every: int = 1  # tau: groups mix in every tau-th round only

    def init(self, x: Tensor, peer: Peer) -> HierarchicalState:
        return HierarchicalState(
            x=x,
            local=self.local.bind(x, peer.layout),
            drift=torch.zeros_like(x) if self.order == "adapt-while-communicate" else None,
            part=x.new_zeros(-(-x.numel() // self.group)) if self.between == "slices" else None,
            whole=None if self.between == "ranks" else torch.zeros_like(x),
        )

    async def step(self, state: HierarchicalState, peer: Peer) -> Tensor:
        if (peer.round + 1) % self.every:
            return await self._local_step(state, peer)
        turn = peer.round // self.every
        if self.order == "adapt-then-combine":
            loss = await self._local_step(state, peer)
            await self._mix(state, peer, turn)
            return loss
        if self.order == "combine-then-adapt":
            await self._mix(state, peer, turn)
            return await self._local_step(state, peer)
        return await self._adapt_while_communicating(state, peer, turn)

    def _inside(self, peer: Peer) -> tuple[int, ...]:
        first = peer.node - peer.node % self.group
        return tuple(range(first, first + self.group))

    async def _local_step(self, state: HierarchicalState, peer: Peer) -> Tensor:
        loss, gradient = await peer.gradient(state.x)
        state.local.step(await peer.all_reduce(gradient, self._inside(peer)))
        return loss

    async def _mix(self, state: HierarchicalState, peer: Peer, turn: int) -> None:
        message = self._message(state, peer)
        await peer.mix_(message, turn)
        if state.whole is not None:
            state.x.copy_(await self._spread(message, state.whole, peer))

    def _message(self, state: HierarchicalState, peer: Peer) -> Tensor:
        """What I exchange: my model, or my part of it."""
        if state.part is None:
            return state.x
        own = state.x[self._share(state.x, peer)]
        state.part[: own.numel()] = own
        return state.part

    def _share(self, x: Tensor, peer: Peer) -> slice:
        """Which numbers of the spread result are mine to give."""
        place, d = peer.node % self.group, x.numel()
        if self.between == "leaders":
            return slice(0, 0 if place else d)
        size = -(-d // self.group)
        return slice(min(place * size, d), min((place + 1) * size, d))

    async def _spread(self, message: Tensor, whole: Tensor, peer: Peer) -> Tensor:
        share = self._share(whole, peer)
        # The mean of one number and k - 1 zeros is a k-th of it.
        torch.mul(message[: share.stop - share.start], self.group, out=whole[share])
        return await peer.all_reduce(whole, self._inside(peer))

    async def _adapt_while_communicating(self, state: HierarchicalState, peer: Peer, turn: int) -> Tensor:
        assert state.drift is not None
        message = self._message(state, peer)
        ticket = await peer.post((message,), turn)
        loss, gradient = await peer.gradient(state.x)
        gradient = await peer.all_reduce(gradient, self._inside(peer))
        drift = state.drift[: message.numel()]
        peer.drift(message, await peer.collect(ticket), turn, out=drift)
        if state.whole is not None:
            state.drift.copy_(await self._spread(drift, state.whole, peer))
        state.local.step(gradient)
        state.x.add_(state.drift)
        return loss
