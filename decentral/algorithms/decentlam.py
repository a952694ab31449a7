"""DecentLaM: heavy-ball momentum on what a whole round of D-SGD changes, so that momentum adds no bias.

With W the mixing matrix, eta the learning rate, g_i node i's minibatch gradient at x_i with its weight decay in it:

    gt_i = (x_i - sum_j w_ij (x_j - eta g_j)) / eta
    m_i+ = beta m_i + gt_i                                      m = 0 before the first round
    x_i+ = x_i - eta m_i+

computed as x+ = W (x - eta g) - eta beta m, which needs no division. Local momentum multiplies the bias that unequal
data leave by 1/(1 - beta)^2; here the fixed point is D-SGD's for every beta. m is in units of gradients.

    beta   momentum        m   state.momentum

Reference: Yuan, Chen, Huang, Zhang, Pan, Xu and Yin 2021 (arXiv:2104.11981), Algorithm 2.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from decentral.algorithms.algorithm import Algorithm, buffer
from decentral.algorithms.quasi_global_momentum import FLOOR, MomentumState
from decentral.peer import Peer
from decentral.topology.stochastic import Kind


@dataclass(frozen=True, kw_only=True)
class DecentLaM(Algorithm):
    mixing: ClassVar[Kind] = "symmetric"
    owns_step: ClassVar[bool] = True

    momentum: float = 0.9  # beta

    @property
    def bears_gossip(self) -> bool:
        return True

    def init(self, x: Tensor, peer: Peer) -> MomentumState:
        return MomentumState(x=x, local=self.local.bind(x, peer.layout), momentum=buffer(x), half=buffer(x))

    async def step(self, state: MomentumState, peer: Peer) -> Tensor:
        x, m = state.x, state.momentum
        loss, gradient = await peer.gradient(x)
        lr = state.local.lr
        torch.add(x, state.local.decay_(gradient), alpha=-lr, out=state.half)
        await peer.mix_(state.half)
        change = x.sub_(state.half)  # eta gt
        torch.add(state.half, m, alpha=-lr * self.momentum, out=state.half)
        m.mul_(self.momentum).add_(change, alpha=1 / max(lr, FLOOR))
        x.copy_(state.half)
        return loss
