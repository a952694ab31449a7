"""D-QSGD: every node sends its gradient through an unbiased compressor, and all step with the mean of what was sent.

With Q an unbiased compressor, eta the learning rate, n nodes that all hold the same x and g_i node i's minibatch
gradient there:

    x+ = x - eta (1/n) sum_i Q(g_i)

Nothing is kept back, so what Q loses is noise, of variance up to (omega / n) times the mean of |g_i|^2: with unequal
data that does not vanish at the optimum. Learned shifts take it away (diana), and so does a Q that is linear, random-k
or sketch with a shared seed and unbiased: true (see `channel`). `- eta` stands for the step of whichever local
optimizer is chosen, the same at all nodes.

Reference: Alistarh, Grubic, Li, Tomioka and Vojnovic 2017 (arXiv:1610.02132), Algorithm 1.
"""

from dataclasses import dataclass

from torch import Tensor

from decentral.algorithms.algorithm import Algorithm, State, buffer
from decentral.algorithms.channel import Channel, Through
from decentral.compression import Named
from decentral.peer import Peer


@dataclass(slots=True)
class DQSGDState(State):
    mean: Tensor  # (d,) scratch: of what all sent
    message: Tensor


@dataclass(frozen=True, kw_only=True)
class DQSGD(Algorithm):
    compression: Named = "int8"
    through: Through = "auto"

    def init(self, x: Tensor, peer: Peer) -> DQSGDState:
        mean = buffer(x)
        channel = Channel.of(self.compression, mean, peer, self.through)
        channel.require_unbiased("D-QSGD")
        message, _ = channel.opened(x.device)
        return DQSGDState(x=x, local=self.local.bind(x, peer.layout), mean=mean, message=message)

    async def step(self, state: DQSGDState, peer: Peer) -> Tensor:
        channel = Channel.of(self.compression, state.mean, peer, self.through)
        loss, gradient = await peer.gradient(state.x)
        channel.compressor.encode(gradient.to(state.mean.dtype), state.message, channel.key)
        await channel.add_mean_(state.mean.zero_(), state.message)
        state.local.step(gradient.copy_(state.mean), alike=True)
        return loss
