"""Synchronous all-reduce SGD: the centralized baseline, through the same waist.

    x+ = x - eta (1/n) sum_i g_i(x)

Every node holds the same x and applies the mean gradient with the local optimizer.
"""

from dataclasses import dataclass

from torch import Tensor

from decentral.algorithms.algorithm import Algorithm, State
from decentral.peer import Peer


@dataclass(frozen=True, kw_only=True)
class AllReduceSGD(Algorithm):
    async def step(self, state: State, peer: Peer) -> Tensor:
        loss, gradient = await peer.gradient(state.x)
        state.local.step(await peer.all_reduce(gradient))
        return loss
