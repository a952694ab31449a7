"""Momentum Tracking: gradient tracking of the local momenta, so that heterogeneous data leave no bias at any momentum.

With W the mixing matrix, eta the learning rate, g_i^k node i's minibatch gradient of round k at x_i^k with its weight
decay in it:

    u_i = beta u_i + g_i;    x+ = W x - eta (u - c);    c+ = W (c - u) + u

Computed as y = u - c, whose mean over all nodes is that of u:

    y^k = W y^(k-1) + u^k - u^(k-1);    x+ = W x - eta y^k

so the message (x^k, y^(k-1)) is known before the gradient of round k, which hides it. beta = 0 is gradient-tracking
with order adapt-while-communicate. y and u are in units of gradients, and a change of eta leaves them valid.

    beta   momentum    u   state.momentum    y   state.tracked    -c   state.correction

The paper starts from u^0 = c^0 = (g - mean of all g) / (1 - beta), by an all-reduce. Here both start from 0, which like
that has sum_i (u_i - c_i) = 0, all that the recursion needs.

Reference: Takezawa, Bao, Niwa, Sato and Yamada 2023 (arXiv:2209.15505), Algorithm 1.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from decentral.algorithms.algorithm import Algorithm, State, buffer
from decentral.algorithms.flow import add_flow_, correction
from decentral.peer import Peer


@dataclass(slots=True)
class MomentumTrackingState(State):
    momentum: Tensor  # (d,) u
    tracked: Tensor  # (d,) y, and between rounds the last round's
    correction: Tensor  # (d,) -c, of which the sum over all nodes is 0
    drift: Tensor  # (d,) scratch: what mixing changes


@dataclass(frozen=True, kw_only=True)
class MomentumTracking(Algorithm):
    owns_step: ClassVar[bool] = True

    momentum: float = 0.9  # beta

    @property
    def bears_gossip(self) -> bool:
        return True

    def init(self, x: Tensor, peer: Peer) -> MomentumTrackingState:
        return MomentumTrackingState(
            x=x,
            local=self.local.bind(x, peer.layout),
            momentum=buffer(x),
            tracked=buffer(x),
            correction=correction(x),
            drift=buffer(x),
        )

    async def step(self, state: MomentumTrackingState, peer: Peer) -> Tensor:
        ticket = await peer.post((state.x, state.tracked))
        loss, gradient = await peer.gradient(state.x)
        state.momentum.mul_(self.momentum).add_(state.local.decay_(gradient))
        received = await peer.collect(ticket)
        add_flow_(state.correction, peer, state.tracked, received, place=1)
        torch.add(state.correction, state.momentum, out=state.tracked)
        add_flow_(state.drift.zero_(), peer, state.x, received)
        state.x.add_(state.tracked, alpha=-state.local.lr).add_(state.drift)
        return loss
