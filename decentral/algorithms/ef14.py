"""EF14, distributed SGD with error feedback (D-EF-SGD): what a message leaves out is kept, and sent later.

With C a contractive compressor, eta the learning rate, n nodes that all hold the same x and g_i node i's minibatch
gradient there:

    p_i  = e_i + eta g_i          e = 0 before the first round
    m_i  = C(p_i)
    e_i+ = p_i - m_i
    x+   = x - (1/n) sum_i m_i

So x - (1/n) sum_i e_i goes the way of uncompressed SGD with the same gradients. `- eta g` stands for the step of
whichever local optimizer is chosen: each node takes it from x, with a momentum of its own (Zheng et al. 2019), and
compresses what it has changed. e is in units of parameters: what was to be applied at one learning rate and is sent
at a later one is applied as it was to be.

Where data are unequal and C is not linear, it rests beside the optimum: at the optimum the g_i are not zero, and each
node's C leaves out others of their numbers. EF21 compresses what will be zero there; and a linear C (random-k or sketch
with a shared seed) leaves out the same of all, of which the sum is zero (see `channel`).

    e   state.residual

References: Seide, Fu, Droppo, Li and Yu 2014 (Interspeech); Karimireddy, Rebjock, Stich and Jaggi 2019
(arXiv:1901.09847), Algorithm 2; Stich 2020 (arXiv:2009.02388) for unequal data; Zheng, Huang and Kwok 2019
(arXiv:1905.10936) for momentum.
"""

from dataclasses import dataclass

from torch import Tensor

from decentral.algorithms.algorithm import Algorithm, State, buffer
from decentral.algorithms.channel import Channel, Through
from decentral.compression import Named
from decentral.peer import Peer


@dataclass(slots=True)
class EF14State(State):
    residual: Tensor  # (d,) e
    mean: Tensor  # (d,) scratch: x before its step, and then the mean of what all sent
    message: Tensor
    memory: Tensor | None  # the compressor's


@dataclass(frozen=True, kw_only=True)
class EF14(Algorithm):
    compression: Named = "top-k"
    through: Through = "auto"

    def init(self, x: Tensor, peer: Peer) -> EF14State:
        residual = buffer(x)
        channel = Channel.of(self.compression, residual, peer, self.through)
        channel.require_contractive("EF14")
        message, memory = channel.opened(x.device)
        local = self.local.bind(x, peer.layout)
        return EF14State(x=x, local=local, residual=residual, mean=buffer(x), message=message, memory=memory)

    async def step(self, state: EF14State, peer: Peer) -> Tensor:
        channel = Channel.of(self.compression, state.residual, peer, self.through)
        loss, gradient = await peer.gradient(state.x)
        add_step_(state.residual, state, gradient, scratch=state.mean)
        channel.compressor.encode_residual(state.residual, state.message, channel.key, state.memory)
        await channel.add_mean_(state.mean.zero_(), state.message)
        state.x.sub_(state.mean)
        return loss


def add_step_(residual: Tensor, state: State, gradient: Tensor, scratch: Tensor) -> None:
    """`residual += x - x+`, x+ being where the local optimizer steps with a gradient; x stays, to the bit.

    Args:
        residual: `(d,)`.
        gradient: `(d,)`.
        scratch: `(d,)`, of a dtype that holds x.
    """
    x = state.x
    scratch.copy_(x)
    state.local.step(gradient)
    residual.sub_(x.sub_(scratch))
    x.copy_(scratch)
