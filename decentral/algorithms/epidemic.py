"""Epidemic Learning: each node sends its model to a few others, drawn anew in every round, and averages what came.

With eta the learning rate, g_i(.) node i's minibatch gradient and R_i whoever drew i as a recipient in this round:

    y_i = x_i - eta g_i(x_i);    x_i+ = (y_i + sum_(j in R_i) y_j) / (1 + |R_i|)

`- eta g` stands for the step of whichever local optimizer is chosen. Where all draw for themselves, EL-Local, R_i are
s nodes in the mean, and the weights 1 / (1 + |R_i|) make rows sum to 1 and columns in the mean alone: in a round the
mean of all models moves, and in expectation over the draws it stays. Where the draw is balanced, EL-Oracle, |R_i| = s
for all, and this is D-SGD in the order adapt-then-combine.

The draws are the schedule of topology epidemic. On links that repeat, the same nodes would count for more in each
round, and the mean would drift: those are refused.

Reference: de Vos et al. 2023 (arXiv:2310.01972), Algorithm 1, with one local step a round.
"""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from decentral.algorithms.algorithm import Algorithm, State
from decentral.errors import ConfigError
from decentral.peer import Mix, Peer
from decentral.topology.stochastic import Kind
from decentral.topology.topology import Topology


@dataclass(frozen=True, kw_only=True)
class EpidemicLearning(Algorithm):
    mixing: ClassVar[Kind] = "column-stochastic"

    def suited(self, graph: Topology) -> tuple[Topology, str]:
        if graph.schedule.period is not None:
            raise ConfigError(
                f"{graph.name} repeats its links, and epidemic takes plain means, which would drift to the nodes that "
                "send most; take topology epidemic, whose recipients are drawn anew, or dsgd, which weighs them"
            )
        return graph, ""

    async def step(self, state: State, peer: Peer) -> Tensor:
        loss, gradient = await peer.gradient(state.x)
        state.local.step(gradient)
        row = peer.row()
        plain = dict.fromkeys(row.weights, 1 / len(row.weights))
        await Mix(state.x, row._replace(weights=plain))
        return loss
