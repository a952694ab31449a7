"""GASLoC: many local steps, then gossip and momentum in one outer step, without any collective.

With W = I - alpha Lambda the mixing matrix, Lambda the graph's Laplacian, z_i node i's model at its last outer step,
and x_i what H local steps make of it:

    every round     x_i+ = x_i - eta g_i(x_i)
    every H-th      y_i+ = z_i + lr (x_i - z_i)
                    z_i+ = sum_j w_ij y_j+ + gamma (y_i+ - y_i);   x_i = z_i+                  y = z before the first

`- eta g` stands for the step of whichever local optimizer is chosen, whose buffers each node keeps over an outer step.
With `momentum_of: mixed` the momentum is of what is mixed, u_i+ = sum_j w_ij y_j+ and z_i+ = u_i+ + gamma (u_i+ - u_i).

On the complete graph, W = J, the mean of all z is DiLoCo's with outer_lr = lr and outer_momentum = gamma: both are
Nesterov's y+ + gamma (y+ - y). With the paper's own momentum nodes still differ by gamma (y_i+ - y_i), so their
gradients are taken at other points; with `mixed` every node is DiLoCo. gamma = 0 and lr = 1 is D-SGD with local steps.

`mixed` diverges where W has an eigenvalue l_n < -1 / (1 + 2 gamma): disagreement along it obeys
r^2 - (1 + gamma) l r + gamma l = 0, whose least root is -1 there. The paper's own has |r| < 1 for all l in (-1, 1).
Where W changes from turn to turn neither is safe: gossip alone, in random pairs of 32 nodes, shrinks disagreement by
0.88 in a turn with gamma = 0.5 and by 0.99 with 0.7, and enlarges it by 1.03 with 0.8 and by 1.08 with 0.9.

    H   every    lr   outer_lr    gamma   outer_momentum    z   state.anchor    y or u   state.before

Reference: Cagnasso, Belilovsky and Oyallon 2026 (arXiv:2606.11081).
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from decentral.algorithms.algorithm import Algorithm, State, buffer
from decentral.errors import ConfigError
from decentral.peer import Peer
from decentral.topology.lazy import MARGIN, least_eigenvalue
from decentral.topology.topology import Topology

CHANGING = 0.6
"""The largest momentum that is not warned of where the mixing matrix changes."""


@dataclass(slots=True)
class GASLoCState(State):
    anchor: Tensor  # (d,) z
    before: Tensor  # (d,) y or u
    ahead: Tensor  # (d,) scratch: y+, which is sent, and then what is mixed


@dataclass(frozen=True, kw_only=True)
class GASLoC(Algorithm):
    every: int = 50  # H
    outer_lr: float = 0.7  # lr
    outer_momentum: float = 0.9  # gamma
    momentum_of: Literal["own", "mixed"] = "own"

    def suited(self, graph: Topology) -> tuple[Topology, str]:
        if self.momentum_of == "mixed" and graph.schedule.period == 1 and graph.schedule.kind == "symmetric":
            bound, last = -1 / (1 + 2 * self.outer_momentum), least_eigenvalue(graph)
            if last <= bound + MARGIN:
                raise ConfigError(
                    f"the mixing matrix of {graph.name} has the eigenvalue {last:.4f}, and GASLoC with momentum_of: "
                    f"mixed and outer_momentum {self.outer_momentum:g} needs all above {bound:.4f}; take "
                    "topology.scaling: lazy, which is (I+W)/2, or momentum_of: own"
                )
        if graph.schedule.period != 1 and self.outer_momentum > CHANGING:
            return graph, (
                f"{graph.name} changes from turn to turn, where outer_momentum {self.outer_momentum:g} may drive nodes "
                f"apart; on random pairs it does from 0.8 on: take {CHANGING:g} or less"
            )
        return graph, ""

    def init(self, x: Tensor, peer: Peer) -> GASLoCState:
        anchor, before = (buffer(x).copy_(x) for _ in range(2))
        return GASLoCState(x=x, local=self.local.bind(x, peer.layout), anchor=anchor, before=before, ahead=buffer(x))

    async def step(self, state: GASLoCState, peer: Peer) -> Tensor:
        loss, gradient = await peer.gradient(state.x)
        state.local.step(gradient)
        if (peer.round + 1) % self.every == 0:
            await self._outer_step(state, peer)
        return loss

    async def _outer_step(self, state: GASLoCState, peer: Peer) -> None:
        turn, gamma = peer.round // self.every, self.outer_momentum
        torch.lerp(state.anchor, state.x.to(state.anchor.dtype), self.outer_lr, out=state.ahead)
        if self.momentum_of == "own":
            torch.sub(state.ahead, state.before, out=state.anchor)
            state.before.copy_(state.ahead)
            await peer.mix_(state.ahead, turn)
        else:
            await peer.mix_(state.ahead, turn)
            torch.sub(state.ahead, state.before, out=state.anchor)
            state.before.copy_(state.ahead)
        state.anchor.mul_(gamma).add_(state.ahead)
        state.x.copy_(state.anchor)
