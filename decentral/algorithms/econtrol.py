"""EControl: EF21's estimates and EF14's error in one message, with a weight that keeps the error from ringing.

With C a contractive compressor, eta the learning rate, kappa the control, n nodes that all hold the same x and g_i node
i's minibatch gradient there with its weight decay in it:

    c_i  = C(kappa e_i / eta + g_i - h_i)        h = e = 0 before the first round
    h_i+ = h_i + c_i;    h+ = h + (1/n) sum_i c_i
    e_i+ = e_i + eta (g_i - h_i+)
    x+   = x - eta h+

So x - (1/n) sum_i e_i goes the way of uncompressed SGD, as in EF14, and h_i tracks the gradient, as in EF21, which is
kappa = 0. The paper's e is ours divided by eta: in units of parameters, what is still to be applied stays what it is
when eta changes.

    kappa   control; delta of C unless given    e   state.residual    h_i   state.estimate    h   state.mean

Reference: Gao, Islamov and Stich 2024 (arXiv:2311.05645), whose eta is kappa and whose gamma is eta.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from decentral.algorithms.algorithm import Algorithm, buffer
from decentral.algorithms.channel import Channel, Through
from decentral.algorithms.ef21 import EF21State, opened, send_difference
from decentral.algorithms.quasi_global_momentum import FLOOR
from decentral.compression import Named
from decentral.peer import Peer


@dataclass(slots=True)
class EControlState(EF21State):
    residual: Tensor  # (d,) e
    wanted: Tensor  # (d,) scratch: what h_i is to become


@dataclass(frozen=True, kw_only=True)
class EControl(Algorithm):
    owns_step: ClassVar[bool] = True

    compression: Named = "top-k"
    control: float | None = None  # kappa
    through: Through = "auto"

    def init(self, x: Tensor, peer: Peer) -> EControlState:
        return EControlState(
            **opened("EControl", self.compression, x, peer, self.through),
            local=self.local.bind(x, peer.layout),
            residual=buffer(x),
            wanted=buffer(x),
        )

    async def step(self, state: EControlState, peer: Peer) -> Tensor:
        channel = Channel.of(self.compression, state.estimate, peer, self.through)
        loss, gradient = await peer.gradient(state.x)
        lr, kappa = state.local.lr, channel.compressor.contraction if self.control is None else self.control
        assert kappa is not None
        g = state.local.decay_(gradient)
        torch.add(g, state.residual, alpha=kappa / max(lr, FLOOR), out=state.wanted)
        await send_difference(state.wanted, state, channel)
        state.residual.add_(g, alpha=lr).sub_(state.estimate, alpha=lr)
        state.x.add_(state.mean, alpha=-lr)
        return loss
