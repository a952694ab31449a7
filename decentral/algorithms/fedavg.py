"""Local SGD, which with all nodes taking part is FedAvg: local steps, and the mean of all models every tau rounds.

With eta the learning rate, g_i(.) node i's minibatch gradient and n the number of nodes:

    every round      x_i+ = x_i - eta g_i(x_i)
    every tau-th     x_i+ = (1/n) sum_j x_j

`- eta g` stands for the step of whichever local optimizer is chosen, whose buffers each node keeps to itself. The mean
is an all-reduce over all nodes: a centralized baseline. `dsgd` with `every` is the same over a graph.

    tau   every

References: McMahan, Moore, Ramage, Hampson and Arcas 2017 (arXiv:1602.05629), Algorithm 1, without sampling of nodes
and with equal weights; Stich 2019 (arXiv:1805.09767), Algorithm 1.
"""

from dataclasses import dataclass

from torch import Tensor

from decentral.algorithms.algorithm import Algorithm, State
from decentral.peer import Peer


@dataclass(frozen=True, kw_only=True)
class FedAvg(Algorithm):
    every: int = 10  # tau

    async def step(self, state: State, peer: Peer) -> Tensor:
        loss, gradient = await peer.gradient(state.x)
        state.local.step(gradient)
        if (peer.round + 1) % self.every == 0:
            state.x.copy_(await peer.all_reduce(state.x))
        return loss
