"""EC-SGD-DIANA: EF14 on gradients minus learned shifts, so that what it leaves out vanishes at the optimum.

With C a contractive and Q an unbiased compressor, eta the learning rate, alpha the shifts' rate, n nodes that all hold
the same x and ghat_i node i's minibatch gradient there:

    g_i  = ghat_i - h_i + h                      h = e = 0 before the first round
    v_i  = C(e_i + eta g_i);    e_i+ = e_i + eta g_i - v_i
    x+   = x - (1/n) sum_i v_i
    d_i  = Q(ghat_i - h_i)
    h_i+ = h_i + alpha d_i;    h+ = h + alpha (1/n) sum_i d_i

The mean of all g_i is that of all ghat_i, since h is the mean of all h_i. Both messages travel together. As in EF14,
`- eta g` stands for the step of whichever local optimizer is chosen, and e is in units of parameters; the shifts are in
units of gradients.

    e   state.residual    h_i   state.shift    h   state.mean_shift    alpha   shift_rate; 1 / (1 + omega) unless given

Reference: Gorbunov, Kovalev, Makarenko and Richtarik 2020 (arXiv:2010.12292), EC-SGD-DIANA; the bias correction of
Stich 2020 (arXiv:2009.02388) is of this kind.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from decentral.algorithms.algorithm import Algorithm, buffer
from decentral.algorithms.channel import Channel, Through, told
from decentral.algorithms.diana import rate_of_shifts
from decentral.algorithms.ef14 import EF14State, add_step_
from decentral.compression import Named
from decentral.config.compression import RandomK
from decentral.peer import Peer

NAME = "EC-SGD-DIANA"
SAMPLED = RandomK(name="random-k", unbiased=True)


@dataclass(slots=True)
class ECSGDDIANAState(EF14State):
    shift: Tensor  # (d,) h_i
    mean_shift: Tensor  # (d,) h, the same at all nodes
    shift_message: Tensor


@dataclass(frozen=True, kw_only=True)
class ECSGDDIANA(Algorithm):
    compression: Named = "top-k"  # C
    shift_compression: Named = SAMPLED  # Q
    shift_rate: float | None = None  # alpha
    through: Through = "auto"

    def _channels(self, like: Tensor, peer: Peer) -> tuple[Channel, Channel]:
        return (
            Channel.of(self.compression, like, peer, self.through),
            Channel.of(self.shift_compression, like, peer, self.through, purpose="shift"),
        )

    def init(self, x: Tensor, peer: Peer) -> ECSGDDIANAState:
        residual = buffer(x)
        channel, shifts = self._channels(residual, peer)
        channel.require_contractive(NAME)
        rate_of_shifts(shifts, NAME, self.shift_rate)
        message, memory = channel.opened(x.device)
        return ECSGDDIANAState(
            x=x,
            local=self.local.bind(x, peer.layout),
            residual=residual,
            mean=buffer(x),
            message=message,
            memory=memory,
            shift=buffer(x),
            mean_shift=buffer(x),
            shift_message=shifts.opened(x.device)[0],
        )

    async def step(self, state: ECSGDDIANAState, peer: Peer) -> Tensor:
        channel, shifts = self._channels(state.residual, peer)
        alpha = rate_of_shifts(shifts, NAME, self.shift_rate)
        loss, gradient = await peer.gradient(state.x)
        true = gradient.to(state.shift.dtype)
        torch.sub(true, state.shift, out=state.mean).add_(state.mean_shift)
        shifts.compressor.encode_difference(true, state.shift, state.shift_message, shifts.key, step=alpha)
        add_step_(state.residual, state, gradient.copy_(state.mean), scratch=state.mean)
        channel.compressor.encode_residual(state.residual, state.message, channel.key, state.memory)
        steps, differences = await told((channel, state.message), (shifts, state.shift_message))
        channel.add_(state.mean.zero_(), steps)
        state.x.sub_(state.mean)
        shifts.add_(state.mean_shift, differences, share=alpha)
        return loss
