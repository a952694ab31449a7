"""NoLoCo: many local steps, then an outer step of momentum with one other node, drawn at random, and no collective.

With W the mixing matrix, z_i node i's model at its last outer step, and x_i what H local steps make of it:

    every round     x_i+ = x_i - eta g_i(x_i)
    every H-th      m_i+ = alpha m_i + beta sum_j w_ij (x_j - z_j) + gamma (sum_j w_ij z_j - z_i)
                    z_i+ = z_i + m_i+;   x_i = z_i+                                           m = 0 at first

`- eta g` stands for the step of whichever local optimizer is chosen, whose buffers each node keeps over an outer step.
The paper's W pairs all nodes anew in each outer step, with weights 1/2: topology complete, schedule random-matchings.

The two sums are one, sum_j w_ij v_j with v = beta x + (gamma - beta) z, so that one vector is sent where the authors'
code sends two. With alpha = 0 and beta = gamma = 1 this is D-SGD with local steps.

    H   every    alpha   outer_momentum    beta   outer_lr    gamma   pull    m   state.momentum    z   state.anchor

Reference: Kolehmainen et al. 2025 (arXiv:2506.10911), whose code has gamma = beta = 0.7 and alpha = 0.5.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from decentral.algorithms.algorithm import Algorithm, State, buffer
from decentral.peer import Peer


@dataclass(slots=True)
class NoLoCoState(State):
    momentum: Tensor  # (d,) m
    anchor: Tensor  # (d,) z
    sent: Tensor  # (d,) scratch: v, and then what is mixed


@dataclass(frozen=True, kw_only=True)
class NoLoCo(Algorithm):
    every: int = 50  # H
    outer_lr: float = 0.7  # beta
    outer_momentum: float = 0.5  # alpha
    pull: float | None = None  # gamma; None: as beta

    def init(self, x: Tensor, peer: Peer) -> NoLoCoState:
        local, anchor = self.local.bind(x, peer.layout), buffer(x).copy_(x)
        return NoLoCoState(x=x, local=local, momentum=buffer(x), anchor=anchor, sent=buffer(x))

    async def step(self, state: NoLoCoState, peer: Peer) -> Tensor:
        loss, gradient = await peer.gradient(state.x)
        state.local.step(gradient)
        if (peer.round + 1) % self.every == 0:
            await self._outer_step(state, peer)
        return loss

    async def _outer_step(self, state: NoLoCoState, peer: Peer) -> None:
        gamma = self.outer_lr if self.pull is None else self.pull
        torch.mul(state.anchor, gamma - self.outer_lr, out=state.sent)
        state.sent.add_(state.x, alpha=self.outer_lr)
        await peer.mix_(state.sent, peer.round // self.every)
        state.momentum.mul_(self.outer_momentum).add_(state.sent).add_(state.anchor, alpha=-gamma)
        state.anchor.add_(state.momentum)
        state.x.copy_(state.anchor)
