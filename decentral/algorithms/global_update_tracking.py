"""Global update tracking, GUT: tracks the mean update of all nodes from the models that D-SGD sends anyway.

With W the mixing matrix, eta the learning rate and g_i node i's minibatch gradient at the mixed model (W x)_i, with its
weight decay in it:

    delta = g - (W x - x) / eta
    y     = delta + mu (W y' - (W x' - x') / eta' - delta')       primes: of the round before; zeros in the first
    x+    = x - eta y

The authors send y and keep copies of the neighbors' models. But W y' = (W x' - W x) / eta' by the last line, so the
mixed models say it all; with z = W x and h = z - eta g, the step of plain D-SGD:

    z = W x;    x+ = h + mu (eta / eta') (z - h')

One vector is kept, and D-SGD's message is the only one. The mean of y is the mean of g, so the mean of x moves as
D-SGD's does; at the fixed point x+ = z - (1 - mu) eta g, so the bias is that of combine-then-adapt D-SGD with (1 - mu)
eta. mu = 0 is D-SGD.

Without gradients r^2 - l (1 + mu) r + l mu is the characteristic polynomial of the part of x along W's eigenvalue l.
Its roots are within the unit circle while l is above -1 / (1 + 2 mu), -.36 at mu = 0.9; below it differences between
nodes grow at any learning rate, and the matrix is replaced by (I+W)/2.

    h'   state.half        eta'   state.lr

Reference: Aketi, Hashemi and Roy 2023 (arXiv:2305.04792), Algorithm 1, with averaging rate 1, without momentum, and
with the gradient at the mixed model, as their code takes it.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from decentral.algorithms.algorithm import Algorithm, State, buffer
from decentral.algorithms.quasi_global_momentum import FLOOR
from decentral.peer import Peer
from decentral.topology.lazy import MARGIN, lazy, least_eigenvalue, refuse_changing
from decentral.topology.topology import Topology


@dataclass(slots=True)
class UpdateTrackingState(State):
    half: Tensor  # (d,) h of the last round
    lr: float = 0.0  # eta of the last round; 0 before the first


@dataclass(frozen=True, kw_only=True)
class GlobalUpdateTracking(Algorithm):
    owns_step: ClassVar[bool] = True

    mu: float = 0.9

    def suited(self, graph: Topology) -> tuple[Topology, str]:
        refuse_changing(graph, "GUT")
        bound, last = -1 / (1 + 2 * self.mu), least_eigenvalue(graph)
        if last > bound + MARGIN:
            return graph, ""
        return lazy(graph), (
            f"the mixing matrix of {graph.name} has the eigenvalue {last:.4f}, and GUT with mu {self.mu:g} needs all "
            f"above {bound:.4f}: it runs with (I+W)/2"
        )

    def init(self, x: Tensor, peer: Peer) -> UpdateTrackingState:
        return UpdateTrackingState(x=x, local=self.local.bind(x, peer.layout), half=buffer(x))

    async def step(self, state: UpdateTrackingState, peer: Peer) -> Tensor:
        x = state.x
        await peer.mix_(x)
        loss, gradient = await peer.gradient(x)
        lr = max(state.local.lr, FLOOR)
        state.local.decay_(gradient)
        change = torch.sub(x, state.half) if state.lr else torch.zeros_like(state.half)
        torch.add(x, gradient, alpha=-lr, out=state.half)
        torch.add(state.half, change, alpha=self.mu * lr / (state.lr or lr), out=x)
        state.lr = lr
        return loss
