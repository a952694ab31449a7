"""SlowMo: tau rounds of a base method, then a momentum step on all that they have changed.

With W the mixing matrix, eta the learning rate of the round, g_i(.) node i's minibatch gradient, z the models at the
last slow step and J x the mean of all models:

    every round     x+ = W (x - eta g(x))                      gossip, D-SGD; with W = I without it, local SGD
    every tau-th    u+ = beta u + (z - J x) / eta
                    z+ = z - alpha eta u+;   x = z+            u = 0 and z = x before the first round

`- eta g` stands for the step of whichever local optimizer is chosen; its own momentum is kept over a slow step. u is in
units of gradients. beta = 0 with alpha = 1 averages all models every tau rounds. The mean J x is an all-reduce over all
nodes, the one exception among gossip methods; `average: none` has x in its place, and nothing but gossip is sent.

    tau    every    beta   slow_momentum    alpha   slow_lr    u   state.momentum    z   state.anchor

Reference: Wang, Tantia, Ballas and Rabbat 2020 (arXiv:1910.00643), Algorithm 1, and SGP-SlowMo-noaverage of section 5.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from decentral.algorithms.algorithm import Algorithm, State, buffer
from decentral.algorithms.quasi_global_momentum import FLOOR
from decentral.peer import Peer


@dataclass(slots=True)
class SlowMoState(State):
    momentum: Tensor  # (d,) u
    anchor: Tensor  # (d,) z


@dataclass(frozen=True, kw_only=True)
class SlowMo(Algorithm):
    every: int = 48  # tau
    slow_momentum: float = 0.5  # beta
    slow_lr: float = 1.0  # alpha
    gossip: bool = True
    average: Literal["exact", "none"] = "exact"

    @property
    def bears_gossip(self) -> bool:
        return self.average == "exact"

    def init(self, x: Tensor, peer: Peer) -> SlowMoState:
        return SlowMoState(x=x, local=self.local.bind(x, peer.layout), momentum=buffer(x), anchor=buffer(x).copy_(x))

    async def step(self, state: SlowMoState, peer: Peer) -> Tensor:
        loss, gradient = await peer.gradient(state.x)
        state.local.step(gradient)
        if self.gossip:
            await peer.mix_(state.x)
        if (peer.round + 1) % self.every == 0:
            mean = await peer.all_reduce(state.x) if self.average == "exact" else state.x
            self._slow_step(state, mean)
        return loss

    def _slow_step(self, state: SlowMoState, mean: Tensor) -> None:
        lr = max(state.local.lr, FLOOR)
        change = torch.sub(state.anchor, mean)
        state.momentum.mul_(self.slow_momentum).add_(change, alpha=1 / lr)
        state.anchor.add_(state.momentum, alpha=-self.slow_lr * lr)
        state.x.copy_(state.anchor)
