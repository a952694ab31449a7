"""DeepSqueeze: compressed models are sent, and what the compression left out is kept and sent later.

With W the mixing matrix, eta the learning rate, g_i(.) node i's minibatch gradient, C a contractive compressor and
gamma the consensus step:

    h_i  = x_i - eta g_i(x_i);    v_i = h_i + e_i;    c_i = C(v_i)
    e_i+ = v_i - c_i                                                  e = 0 before the first round
    x_i+ = h_i + gamma sum_j (w_ij - [i = j]) c_j

`- eta g` stands for the step of whichever local optimizer is chosen. e is in units of parameters. Nothing is kept about
neighbors, so W may change from turn to turn; but whole models are compressed and not what is new of them, so the error
does not tend to 0, and gamma must be small.

    e   state.error

Reference: Tang et al. 2019 (arXiv:1907.07346), Algorithm 1.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from decentral.algorithms.algorithm import Algorithm, State
from decentral.algorithms.public_copy import contractive
from decentral.compression import Key, Named, Space, compressor_of
from decentral.peer import Peer


@dataclass(slots=True)
class DeepSqueezeState(State):
    error: Tensor  # (d,) e
    packed: Tensor  # c, the message
    memory: Tensor | None  # the compressor's


@dataclass(frozen=True, kw_only=True)
class DeepSqueeze(Algorithm):
    compression: Named
    consensus_step: float  # gamma

    def init(self, x: Tensor, peer: Peer) -> DeepSqueezeState:
        compressor = contractive(self.compression, x, peer)
        return DeepSqueezeState(
            x=x,
            local=self.local.bind(x, peer.layout),
            error=torch.zeros_like(x),
            packed=compressor.message(x.device),
            memory=compressor.memory(Key(peer.seed, 0, peer.node)),
        )

    async def step(self, state: DeepSqueezeState, peer: Peer) -> Tensor:
        compressor = compressor_of(self.compression, Space.of(state.x, peer.layout))
        key = Key(peer.seed, peer.round, peer.node)
        loss, gradient = await peer.gradient(state.x)
        state.local.step(gradient)
        compressor.encode_residual(state.error.add_(state.x), state.packed, key, state.memory)
        received = await peer.exchange((state.packed,))
        weights = {j: self.consensus_step * (weight - (j == peer.node)) for j, weight in peer.row().weights.items()}
        packed = {peer.node: state.packed} | {sender: payload[0] for sender, payload in received.items()}
        compressor.add(state.x, weights, packed, key)
        return loss
