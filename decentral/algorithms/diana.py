"""DIANA: quantized differences between each node's gradient and a shift that is learned from what was sent.

With Q an unbiased compressor, eta the learning rate, alpha the shifts' rate, n nodes that all hold the same x and g_i
node i's minibatch gradient there:

    d_i  = Q(g_i - h_i)                          h = 0 before the first round
    x+   = x - eta (h + (1/n) sum_i d_i)
    h_i+ = h_i + alpha d_i;    h+ = h + alpha (1/n) sum_i d_i

h_i comes to be node i's gradient at the optimum, so that what is quantized vanishes there, and with it the noise that
D-QSGD has of unequal data. alpha is at most 1 / (1 + omega). `- eta` stands for the step of whichever local optimizer
is chosen, the same at all nodes; the shifts are in units of gradients, so eta may change.

    alpha   shift_rate; 1 / (1 + omega) unless given        h_i   state.shift        h   state.mean_shift

Reference: Mishchenko, Gorbunov, Takac and Richtarik 2019 (arXiv:1901.09269), Algorithm 1, without its momentum.
"""

from dataclasses import dataclass

from torch import Tensor

from decentral.algorithms.algorithm import Algorithm, State, buffer
from decentral.algorithms.channel import Channel, Through
from decentral.compression import Named
from decentral.config.compression import QSGD
from decentral.peer import Peer

TERNARY = QSGD(name="qsgd", bits=2, norm="inf", block=512)
"""The paper's quantization."""


@dataclass(slots=True)
class DIANAState(State):
    shift: Tensor  # (d,) h_i
    mean_shift: Tensor  # (d,) h, the same at all nodes
    mean: Tensor  # (d,) scratch: of what all sent
    message: Tensor


@dataclass(frozen=True, kw_only=True)
class DIANA(Algorithm):
    compression: Named = TERNARY
    shift_rate: float | None = None  # alpha
    through: Through = "auto"

    def init(self, x: Tensor, peer: Peer) -> DIANAState:
        shift = buffer(x)
        channel = Channel.of(self.compression, shift, peer, self.through)
        rate_of_shifts(channel, "DIANA", self.shift_rate)
        message, _ = channel.opened(x.device)
        local = self.local.bind(x, peer.layout)
        return DIANAState(x=x, local=local, shift=shift, mean_shift=buffer(x), mean=buffer(x), message=message)

    async def step(self, state: DIANAState, peer: Peer) -> Tensor:
        channel = Channel.of(self.compression, state.shift, peer, self.through)
        alpha = rate_of_shifts(channel, "DIANA", self.shift_rate)
        loss, gradient = await peer.gradient(state.x)
        g = gradient.to(state.shift.dtype)
        channel.compressor.encode_difference(g, state.shift, state.message, channel.key, step=alpha)
        await channel.add_mean_(state.mean.zero_(), state.message)
        gradient.copy_(state.mean).add_(state.mean_shift)
        state.mean_shift.add_(state.mean, alpha=alpha)
        state.local.step(gradient, alike=True)
        return loss


def rate_of_shifts(channel: Channel, method: str, given: float | None) -> float:
    """alpha: the given one, or the largest that theory allows.

    Raises:
        ConfigError: the compressor is biased.
    """
    omega = channel.require_unbiased(method)
    return 1 / (1 + omega) if given is None else given
