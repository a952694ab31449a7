"""ECD-PSGD: an extrapolation of the model is compressed, and neighbors average it into an estimate.

With W the mixing matrix, eta the learning rate, g_i(.) node i's minibatch gradient, C a compressor and t = 1, 2, ...:

    x_i+  = sum_j w_ij xt_j - eta g_i(x_i)
    z_i   = (1 - t/2) x_i + t/2 x_i+
    xt_i+ = (1 - 2/t) xt_i + 2/t C(z_i)

If nothing is lost, xt = x. An unbiased C's errors are averaged by the weights 2/t; but each is a share of z,
which is as large as the model, however little is new of it. So they do not tend to 0: with 8 bits they are small, with
2 as large as the model, and a biased C is not averaged at all. It is here to be compared with. `- eta g` stands for the
step of whichever local optimizer is chosen. All nodes must begin with the same model, xt = x.

    sum_j w_ij xt_j   state.estimate     z   state.ahead

Reference: Tang, Gan, Zhang, Zhang and Liu 2018 (arXiv:1803.06443), Algorithm 2.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from decentral.algorithms.algorithm import Algorithm, State
from decentral.algorithms.public_copy import compiled
from decentral.compression import Key, Named, Space, compressor_of
from decentral.peer import Peer
from decentral.topology.lazy import refuse_changing
from decentral.topology.topology import Topology


@dataclass(slots=True)
class ECDState(State):
    estimate: Tensor  # (d,) of the mixed models
    packed: Tensor  # C(z), the message
    memory: Tensor | None  # the compressor's
    ahead: Tensor  # (d,) scratch: z


@dataclass(frozen=True, kw_only=True)
class ECD(Algorithm):
    compression: Named

    @property
    def starts_alike(self) -> bool:
        return True

    def suited(self, graph: Topology) -> tuple[Topology, str]:
        refuse_changing(graph, "ECD-PSGD")
        return graph, ""

    def init(self, x: Tensor, peer: Peer) -> ECDState:
        compressor = compiled(self.compression, x, peer)
        return ECDState(
            x=x,
            local=self.local.bind(x, peer.layout),
            estimate=x.clone(),
            packed=compressor.message(x.device),
            memory=compressor.memory(Key(peer.seed, 0, peer.node)),
            ahead=torch.zeros_like(x),
        )

    async def step(self, state: ECDState, peer: Peer) -> Tensor:
        compressor = compressor_of(self.compression, Space.of(state.x, peer.layout))
        x, ahead, t, key = state.x, state.ahead, peer.round + 1, Key(peer.seed, peer.round, peer.node)
        loss, gradient = await peer.gradient(x)
        ahead.copy_(x)
        state.local.step(gradient)
        x.sub_(ahead).add_(state.estimate)
        ahead.lerp_(x, t / 2)
        compressor.encode(ahead, state.packed, key, state.memory)
        received = await peer.exchange((state.packed,))
        weights = {j: 2 / t * weight for j, weight in peer.row().weights.items()}
        packed = {peer.node: state.packed} | {sender: payload[0] for sender, payload in received.items()}
        compressor.add(state.estimate.mul_(1 - 2 / t), weights, packed, key)
        return loss
