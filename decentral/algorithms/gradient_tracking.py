"""Gradient tracking (DSGT) in its three recursions: a node steps along y_i, which tracks the mean gradient of all.

With W the mixing matrix, eta the learning rate and g_i^k node i's minibatch gradient of round k, at x_i^k:

    mixed                     x+ = W (x - eta y);   y+ = W y + g+ - g;      y^0 = g^0
    adapt-while-communicate   x+ = W x - eta y;     y+ = W y + g+ - g;      y^0 = g^0
    adapt-then-combine        x+ = W (x - eta y);   y+ = W (y + g+ - g);    y^0 = W g^0

`- eta y` stands for the step of whichever local optimizer is chosen, with its momentum and weight decay, so y is in
units of gradients and a change of eta leaves it valid. In all three the mean of y is the mean of g in every round.

    y   state.tracked      what a node steps along
    c   state.correction   y - g, of which the sum over all nodes is 0; c+ = c + (W y - y)

Messages are pairs (x or x - eta y, y). In adapt-while-communicate that is (x^k, y^(k-1)), known before the gradient of
round k, which hides it: y^k = W y^(k-1) + g^k - g^(k-1). Adapt-then-combine exchanges twice in a round, with one W.

References: Koloskova, Lin and Stich 2021 (arXiv:2202.03836), Algorithm 1, for mixed; Nedic, Olshevsky and Shi 2017
(arXiv:1607.03218), Algorithm 1 (DIGing), for adapt-while-communicate; Xu, Zhu, Soh and Xie 2015 (Aug-DGM, IEEE CDC),
eq. (6), for adapt-then-combine.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from decentral.algorithms.algorithm import Algorithm, State, buffer
from decentral.algorithms.flow import add_flow_, correction
from decentral.peer import Peer

TrackingOrder = Literal["mixed", "adapt-then-combine", "adapt-while-communicate"]


@dataclass(slots=True)
class TrackingState(State):
    tracked: Tensor  # (d,) y, and between rounds the last round's
    correction: Tensor  # (d,) c
    drift: Tensor  # (d,) scratch: what mixing changes


@dataclass(frozen=True, kw_only=True)
class GradientTracking(Algorithm):
    order: TrackingOrder = "mixed"

    @property
    def bears_gossip(self) -> bool:
        return True

    def init(self, x: Tensor, peer: Peer) -> TrackingState:
        local = self.local.bind(x, peer.layout)
        return TrackingState(x=x, local=local, tracked=buffer(x), correction=correction(x), drift=buffer(x))

    async def step(self, state: TrackingState, peer: Peer) -> Tensor:
        if self.order == "adapt-while-communicate":
            return await self._adapt_while_communicating(state, peer)
        loss, gradient = await peer.gradient(state.x)
        torch.add(state.correction, gradient, out=state.tracked)
        if self.order == "mixed":
            await self._mixed(state, gradient, peer)
        else:
            await self._adapt_then_combine(state, gradient, peer)
        return loss

    async def _mixed(self, state: TrackingState, gradient: Tensor, peer: Peer) -> None:
        # The optimizer may overwrite what it steps with, and y is still to be sent.
        state.local.step(gradient.copy_(state.tracked))
        received = await peer.exchange((state.x, state.tracked))
        state.x.add_(add_flow_(state.drift.zero_(), peer, state.x, received))
        add_flow_(state.correction, peer, state.tracked, received, place=1)

    async def _adapt_then_combine(self, state: TrackingState, gradient: Tensor, peer: Peer) -> None:
        # The first round mixes as all do, where Aug-DGM starts from y^0 = g^0.
        received = await peer.exchange((state.tracked,))
        add_flow_(state.correction, peer, state.tracked, received)
        torch.add(state.correction, gradient, out=state.tracked)
        state.local.step(gradient.copy_(state.tracked))
        await peer.mix_(state.x)

    async def _adapt_while_communicating(self, state: TrackingState, peer: Peer) -> Tensor:
        ticket = await peer.post((state.x, state.tracked))
        loss, gradient = await peer.gradient(state.x)
        received = await peer.collect(ticket)
        add_flow_(state.correction, peer, state.tracked, received, place=1)
        torch.add(state.correction, gradient, out=state.tracked)
        add_flow_(state.drift.zero_(), peer, state.x, received)
        state.local.step(gradient.copy_(state.tracked))
        state.x.add_(state.drift)
        return loss
