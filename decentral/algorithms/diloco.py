"""DiLoCo: many local steps, then one step of Nesterov's momentum along what they have changed in the mean of all nodes.

With z the model at the last outer step, x_i what H local steps of node i make of it, and n the number of nodes:

    every round     x_i+ = x_i - eta g_i(x_i)
    every H-th      Delta = z - (1/n) sum_j x_j
                    m+ = beta m + Delta;   z+ = z - gamma (Delta + beta m+);   x_i = z+        m = 0 at first

`- eta g` stands for the step of whichever local optimizer is chosen, AdamW in the paper, whose buffers each node keeps
to itself over an outer step. gamma = 1 with beta = 0 is local SGD (`fedavg`). The mean is an all-reduce over all nodes:
a centralized baseline. All nodes have the same z and m, to the rounding of that sum.

    H   every    beta   outer_momentum    gamma   outer_lr    m   state.momentum    z   state.anchor

Reference: Douillard et al. 2023 (arXiv:2311.08105), Algorithm 1, whose gamma and beta are the defaults.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from decentral.algorithms.algorithm import Algorithm, State, buffer
from decentral.peer import Peer


@dataclass(slots=True)
class DiLoCoState(State):
    momentum: Tensor  # (d,) m
    anchor: Tensor  # (d,) z


@dataclass(frozen=True, kw_only=True)
class DiLoCo(Algorithm):
    every: int = 50  # H
    outer_lr: float = 0.7  # gamma
    outer_momentum: float = 0.9  # beta

    def init(self, x: Tensor, peer: Peer) -> DiLoCoState:
        return DiLoCoState(x=x, local=self.local.bind(x, peer.layout), momentum=buffer(x), anchor=buffer(x).copy_(x))

    async def step(self, state: DiLoCoState, peer: Peer) -> Tensor:
        loss, gradient = await peer.gradient(state.x)
        state.local.step(gradient)
        if (peer.round + 1) % self.every == 0:
            change = torch.sub(state.anchor, await peer.all_reduce(state.x))
            state.momentum.mul_(self.outer_momentum).add_(change)
            state.anchor.add_(change, alpha=-self.outer_lr)
            state.anchor.add_(state.momentum, alpha=-self.outer_lr * self.outer_momentum)
            state.x.copy_(state.anchor)
        return loss
