"""EF21-SGDM: EF21 on a running average of each node's stochastic gradients, and not on the gradients themselves.

With C a contractive compressor, eta the learning rate, beta the momentum, n nodes that all hold the same x and grad_i
node i's minibatch gradient there:

    v_i+ = beta v_i + (1 - beta) grad_i          v_i = grad_i in the first round
    u_i+ = beta u_i + (1 - beta) v_i+            double (EF21-SGD2M); else u_i = v_i
    c_i  = C(u_i+ - g_i)                         g_i = 0 before the first round
    g_i+ = g_i + c_i;    g+ = g + (1/n) sum_i c_i
    x+   = x - eta g+

Gradient noise does not vanish, and EF21 would chase it: what C leaves out of it never gets through with small batches.
The average has less of it. The paper's eta is 1 - beta, its gamma our eta. beta = 0 is EF21. `- eta g+` stands for the
step of whichever local optimizer is chosen; its momentum is another one, of the mean. All buffers are in units of
gradients, so eta may change.

    beta   momentum    v_i   state.average    u_i   state.second    g_i   state.estimate    g   state.mean

Reference: Fatkhullin, Tyurin and Richtarik 2023 (arXiv:2305.15155), Algorithm 1, and its double momentum.
"""

from dataclasses import dataclass

from torch import Tensor

from decentral.algorithms.algorithm import Algorithm, buffer
from decentral.algorithms.channel import Channel, Through
from decentral.algorithms.ef21 import EF21State, opened, send_difference
from decentral.compression import Named
from decentral.peer import Peer


@dataclass(slots=True)
class EF21SGDMState(EF21State):
    average: Tensor  # (d,) v_i
    second: Tensor | None  # (d,) u_i, where momentum is double


@dataclass(frozen=True, kw_only=True)
class EF21SGDM(Algorithm):
    compression: Named = "top-k"
    momentum: float = 0.9  # beta
    double: bool = False
    through: Through = "auto"

    def init(self, x: Tensor, peer: Peer) -> EF21SGDMState:
        return EF21SGDMState(
            **opened("EF21-SGDM", self.compression, x, peer, self.through),
            local=self.local.bind(x, peer.layout),
            average=buffer(x),
            second=buffer(x) if self.double else None,
        )

    async def step(self, state: EF21SGDMState, peer: Peer) -> Tensor:
        loss, gradient = await peer.gradient(state.x)
        weight = 1 - self.momentum if peer.round else 1.0
        u = state.average.lerp_(gradient.to(state.average.dtype), weight)
        if state.second is not None:
            u = state.second.lerp_(u, weight)
        await send_difference(u, state, Channel.of(self.compression, u, peer, self.through))
        state.local.step(gradient.copy_(state.mean), alike=True)
        return loss
