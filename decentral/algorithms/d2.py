"""D2: D-SGD with a correction that removes the bias which heterogeneous data leave, at no more communication.

With W the mixing matrix, eta the learning rate, g_i^k node i's minibatch gradient of round k and u = - eta g:

    x^1 = W (x^0 + u^0);    x^(k+1) = W (2 x^k - x^(k-1) + u^k - u^(k-1))

The same with c = x - x^(k-1) - u^(k-1), in units of parameters:

    h = x + u + c;    c+ = c + (W h - h);    x+ = x + u + c+ = W h;    c = 0 before the first round

So the learning rate may change and u may be the step of any local optimizer. The paper's eta (g^k - g^(k-1)) would
take the old gradient back with a rate that it was never applied with.

    h   state.half         c   state.correction, of which the sum over all nodes is 0

D2 diverges where W has an eigenvalue l_n < -1/3, at any small eta: in that direction x obeys z^2 - 2 l z + l = 0, whose
root l - sqrt(l^2 - l) is -1 at l = -1/3. There (I+W)/2 takes the place of W. With it D2 is Exact Diffusion.

References: Tang, Lian, Yan, Zhang and Liu 2018 (arXiv:1803.07068), Algorithm 1; Vogels et al. 2021 (arXiv:2110.04175),
whose code has the correction in units of parameters.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from decentral.algorithms.algorithm import Algorithm, State, buffer
from decentral.algorithms.flow import add_flow_, correction
from decentral.errors import ConfigError
from decentral.peer import Peer
from decentral.topology.lazy import MARGIN, lazy, least_eigenvalue, refuse_changing
from decentral.topology.stochastic import Kind
from decentral.topology.topology import Topology

BOUND = -1 / 3
"""All eigenvalues of the mixing matrix must be above."""


@dataclass(slots=True)
class D2State(State):
    correction: Tensor  # (d,) c
    half: Tensor  # (d,) scratch: h, which is sent


@dataclass(frozen=True, kw_only=True)
class D2(Algorithm):
    mixing: ClassVar[Kind] = "symmetric"

    lazy: Literal["auto", "never"] = "auto"

    def suited(self, graph: Topology) -> tuple[Topology, str]:
        refuse_changing(graph, "D2")
        last = least_eigenvalue(graph)
        if last > BOUND + MARGIN:
            return graph, ""
        found = f"the mixing matrix of {graph.name} has the eigenvalue {last:.4f}, and D2 needs all above -1/3"
        if self.lazy == "never":
            raise ConfigError(f"{found}; take topology.scaling: lazy, which is (I+W)/2, or algorithm.lazy: auto")
        return lazy(graph), f"{found}: it runs with (I+W)/2"

    def init(self, x: Tensor, peer: Peer) -> D2State:
        return D2State(x=x, local=self.local.bind(x, peer.layout), correction=correction(x), half=buffer(x))

    async def step(self, state: D2State, peer: Peer) -> Tensor:
        loss, gradient = await peer.gradient(state.x)
        state.local.step(gradient)
        torch.add(state.x, state.correction, out=state.half)
        received = await peer.exchange((state.half,))
        add_flow_(state.correction, peer, state.half, received)
        state.x.add_(state.correction)
        return loss
