"""Quasi-global momentum, QG-DSGDm and QG-DSGDm-N: the buffer follows the models after mixing, not the own gradients.

With W the mixing matrix, eta the learning rate, g_i node i's minibatch gradient at x_i with its weight decay in it:

    m_i   = beta mhat_i + g_i
    d_i   = m_i                                               heavy ball, QG-DSGDm
            g_i + beta m_i                                    Nesterov, QG-DSGDm-N
    x_i+  = sum_j w_ij (x_j - eta d_j)
    mhat+ = mu mhat + (1 - mu) (x - x+) / eta                 mhat = 0 before the first round

What mixing adds of the neighbors' steps is in x - x+, so mhat points where all nodes go. It is in units of gradients:
the difference is divided by the rate that made it, and a change of eta leaves mhat valid. mu = 1 is D-SGD.

    beta   momentum        mhat   state.momentum

Reference: Lin, Karimireddy, Stich and Jaggi 2021 (arXiv:2102.04761), Algorithm 1.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from decentral.algorithms.algorithm import Algorithm, State, buffer
from decentral.peer import Peer

FLOOR = 1e-8
"""The least learning rate that a difference of models is divided by."""


@dataclass(slots=True)
class MomentumState(State):
    momentum: Tensor  # (d,) mhat
    half: Tensor  # (d,) scratch: x - eta d, which is sent, and then x+


@dataclass(frozen=True, kw_only=True)
class QuasiGlobalMomentum(Algorithm):
    owns_step: ClassVar[bool] = True

    momentum: float = 0.9  # beta
    mu: float = 0.9
    nesterov: bool = True

    @property
    def bears_gossip(self) -> bool:
        return True

    def init(self, x: Tensor, peer: Peer) -> MomentumState:
        return MomentumState(x=x, local=self.local.bind(x, peer.layout), momentum=buffer(x), half=buffer(x))

    async def step(self, state: MomentumState, peer: Peer) -> Tensor:
        x, mhat, beta = state.x, state.momentum, self.momentum
        loss, gradient = await peer.gradient(x)
        lr = state.local.lr
        direction = state.local.decay_(gradient)
        if self.nesterov:
            direction.mul_(1 + beta).add_(mhat, alpha=beta * beta)  # g + beta (beta mhat + g)
        else:
            direction.add_(mhat, alpha=beta)
        torch.add(x, direction, alpha=-lr, out=state.half)
        await peer.mix_(state.half)
        mhat.mul_(self.mu).add_(x.sub_(state.half), alpha=(1 - self.mu) / max(lr, FLOOR))
        x.copy_(state.half)
        return loss
