"""EF21: each node keeps an estimate of its own gradient, and sends the compressed difference to the true one.

With C a contractive compressor, eta the learning rate, n nodes that all hold the same x and grad_i node i's gradient
there:

    c_i  = C(grad_i - g_i)        g_i = 0 before the first round, so that after it g_i = C(grad_i)
    g_i+ = g_i + c_i
    g+   = g + (1/n) sum_i c_i
    x+   = x - eta g+

That is the paper's loop, which begins with its last line. The differences vanish where x comes to rest, and with them
what C leaves out: it reaches the optimum at a fixed learning rate with unequal data, where EF14 does not. With
stochastic gradients they do not vanish: take ef21-sgdm, or large batches. `- eta g+` stands for the step of whichever
local optimizer is chosen, the same at all nodes. Both estimates are in units of gradients, so eta may change.

    g_i   state.estimate        g   state.mean

Reference: Richtarik, Sokolov and Fatkhullin 2021 (arXiv:2106.05203), Algorithm 2.
"""

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from decentral.algorithms.algorithm import Algorithm, State, buffer
from decentral.algorithms.channel import Channel, Through
from decentral.compression import Named
from decentral.peer import Peer


@dataclass(slots=True)
class EF21State(State):
    estimate: Tensor  # (d,) g_i
    mean: Tensor  # (d,) g, the same at all nodes
    message: Tensor
    memory: Tensor | None  # the compressor's


@dataclass(frozen=True, kw_only=True)
class EF21(Algorithm):
    compression: Named = "top-k"
    through: Through = "auto"

    def init(self, x: Tensor, peer: Peer) -> EF21State:
        return EF21State(
            local=self.local.bind(x, peer.layout), **opened("EF21", self.compression, x, peer, self.through)
        )

    async def step(self, state: EF21State, peer: Peer) -> Tensor:
        loss, gradient = await peer.gradient(state.x)
        channel = Channel.of(self.compression, state.estimate, peer, self.through)
        await send_difference(gradient.to(state.estimate.dtype), state, channel)
        state.local.step(gradient.copy_(state.mean), alike=True)
        return loss


def opened(method: str, compression: Named, x: Tensor, peer: Peer, through: Through) -> dict[str, Any]:
    """The fields of the State before the first round, but the local optimizer.

    Raises:
        ConfigError: the compressor is not contractive, or does not go through an all-reduce.
    """
    estimate = buffer(x)
    channel = Channel.of(compression, estimate, peer, through)
    channel.require_contractive(method)
    message, memory = channel.opened(x.device)
    return {"x": x, "estimate": estimate, "mean": buffer(x), "message": message, "memory": memory}


async def send_difference(v: Tensor, state: EF21State, channel: Channel) -> None:
    """Send C(v - g_i) of `v: (d,)`, and move g_i and g by what was sent."""
    channel.compressor.encode_difference(v, state.estimate, state.message, channel.key, memory=state.memory)
    await channel.add_mean_(state.mean, state.message)
