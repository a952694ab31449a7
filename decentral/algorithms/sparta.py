"""SPARTA over gossip: in every round nodes mix a small random part of their models, the same part at all nodes.

With W the mixing matrix, eta the learning rate, g_i(.) node i's minibatch gradient and S_k the numbers of round k:

    adapt-then-combine        y_i = x_i - eta g_i(x_i);   x_i+ = y_i outside S_k, sum_j w_ij y_j on it
    adapt-while-communicate   x_i+ = x_i - eta g_i(x_i) + (sum_j w_ij x_j - x_i) on S_k

`- eta g` stands for the step of whichever local optimizer is chosen. S_k is a fraction p of the vector, drawn from the
run's seed and k, so no index is sent; each number is in it with probability p. With p = 1 this is D-SGD in the order of
the same name. Only the numbers in S_k are read, sent and written.

    p   fraction

Reference: Beton et al. 2025, SPARTA (Sparse Parameter Averaging for Reduced-communication Training, MCDC workshop at
ICLR), with the mean over neighbors in place of that over all nodes.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from decentral.algorithms.algorithm import Algorithm, State
from decentral.compression import Key
from decentral.compression.random_k import random_places
from decentral.peer import Peer


@dataclass(slots=True)
class SpartaState(State):
    part: Tensor  # (k,) scratch: the numbers in S_k, which are sent


@dataclass(frozen=True, kw_only=True)
class Sparta(Algorithm):
    fraction: float = 0.005  # p
    order: Literal["adapt-then-combine", "adapt-while-communicate"] = "adapt-then-combine"

    @property
    def bears_gossip(self) -> bool:
        return True

    def init(self, x: Tensor, peer: Peer) -> SpartaState:
        count = max(1, int(self.fraction * x.numel()))
        return SpartaState(x=x, local=self.local.bind(x, peer.layout), part=x.new_zeros(count))

    async def step(self, state: SpartaState, peer: Peer) -> Tensor:
        places = self._places(state, peer)
        if self.order == "adapt-then-combine":
            loss = await self._local_step(state, peer)
            torch.index_select(state.x, 0, places, out=state.part)
            await peer.mix_(state.part)
            state.x.index_copy_(0, places, state.part)
            return loss
        torch.index_select(state.x, 0, places, out=state.part)
        ticket = await peer.post((state.part,))
        loss = await self._local_step(state, peer)
        drift = peer.drift(state.part, await peer.collect(ticket), out=torch.empty_like(state.part))
        state.x.index_add_(0, places, drift)
        return loss

    def _places(self, state: SpartaState, peer: Peer) -> Tensor:
        stream = Key(peer.seed, peer.round, peer.node).shared
        drawn = random_places(state.x.numel(), state.part.numel(), stream)
        return torch.from_numpy(drawn.astype(np.int64)).to(state.x.device)

    async def _local_step(self, state: SpartaState, peer: Peer) -> Tensor:
        loss, gradient = await peer.gradient(state.x)
        state.local.step(gradient)
        return loss
