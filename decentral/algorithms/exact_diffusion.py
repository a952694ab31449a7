"""Exact Diffusion: adapt, correct, combine. It reaches the optimum with a constant learning rate and unequal data.

With A the mixing matrix, eta the learning rate and g_i(.) node i's minibatch gradient:

    adapt     psi+ = x - eta g(x)
    correct   phi+ = psi+ + x - psi            psi = x before the first round
    combine   x+   = (I + A)/2 phi+

`- eta g` stands for the step of whichever local optimizer is chosen. psi is a model, so the correction x - psi is in
units of parameters, and the learning rate may change.

    x - psi   state.correction        phi   state.phi

References: Yuan, Ying, Zhao and Sayed 2019 (arXiv:1702.05122), Algorithm 1; Li, Shi and Yan 2019 (arXiv:1704.07807),
whose NIDS it is with equal learning rates. It is D2 with (I + A)/2.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from decentral.algorithms.algorithm import Algorithm, State, buffer
from decentral.algorithms.flow import add_flow_, correction
from decentral.peer import Peer
from decentral.topology.lazy import refuse_changing
from decentral.topology.stochastic import Kind
from decentral.topology.topology import Topology


@dataclass(slots=True)
class ExactDiffusionState(State):
    correction: Tensor  # (d,) x - psi
    phi: Tensor  # (d,) scratch: what is sent


@dataclass(frozen=True, kw_only=True)
class ExactDiffusion(Algorithm):
    mixing: ClassVar[Kind] = "symmetric"

    def suited(self, graph: Topology) -> tuple[Topology, str]:
        refuse_changing(graph, "Exact Diffusion")
        return graph, ""

    def init(self, x: Tensor, peer: Peer) -> ExactDiffusionState:
        local = self.local.bind(x, peer.layout)
        return ExactDiffusionState(x=x, local=local, correction=correction(x), phi=buffer(x))

    async def step(self, state: ExactDiffusionState, peer: Peer) -> Tensor:
        loss, gradient = await peer.gradient(state.x)
        state.local.step(gradient)  # x is psi+ now
        torch.add(state.x, state.correction, out=state.phi)
        received = await peer.exchange((state.phi,))
        # What combining adds to phi is what it adds to x - psi.
        add_flow_(state.correction, peer, state.phi, received, share=0.5)
        state.x.add_(state.correction)
        return loss
