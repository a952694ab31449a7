"""MoTEF: BEER that tracks momenta in place of gradients, which takes the noise of minibatches out of what is sent.

With G'_k the minibatch gradients of round k at X^k, and H, G, C, W, gamma and eta as in `beer`:

    M^0 = G'_0;    M^(k+1) = (1 - lambda) M^k + lambda G'_(k+1)
    X^(k+1) = X^k + gamma (W - I) H^k - eta V^k;    V^(k+1) = V^k + gamma (W - I) G^k + M^(k+1) - M^k
    H^(k+1) = H^k + C(X^(k+1) - H^k);               G^(k+1) = G^k + C(V^(k+1) - G^k)

The mean of V is the mean of M in every round. The start is that of `beer`, with V^0 = M^0; lambda = 1 is BEER.

    M   state.momentum    lambda   momentum_step

Reference: Islamov, Gao and Stich 2024 (arXiv:2405.20114), Algorithm 1.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from decentral.algorithms.algorithm import Algorithm, buffer
from decentral.algorithms.beer import BEERState, track
from decentral.algorithms.flow import correction
from decentral.algorithms.public_copy import PublicCopy, contractive, settled
from decentral.algorithms.public_flow import PublicFlow
from decentral.compression import Named, Space, compressor_of
from decentral.peer import Peer
from decentral.topology.lazy import refuse_changing
from decentral.topology.stochastic import Kind
from decentral.topology.topology import Topology


@dataclass(slots=True)
class MoTEFState(BEERState):
    momentum: Tensor  # (d,) M


@dataclass(frozen=True, kw_only=True)
class MoTEF(Algorithm):
    mixing: ClassVar[Kind] = "symmetric"

    compression: Named
    consensus_step: float | Literal["auto"] = "auto"  # gamma, which is known before the first round
    momentum_step: float = 0.1  # lambda

    @property
    def starts_alike(self) -> bool:
        return True

    def suited(self, graph: Topology) -> tuple[Topology, str]:
        refuse_changing(graph, "MoTEF")
        return graph, ""

    def init(self, x: Tensor, peer: Peer) -> MoTEFState:
        compressor, tracked = contractive(self.compression, x, peer, torch.float64), buffer(x)
        return MoTEFState(
            x=x,
            local=self.local.bind(x, peer.layout),
            models=PublicCopy.of(x, compressor, peer),
            directions=PublicFlow.of(tracked, compressor, peer, place=1),
            correction=correction(x),
            tracked=tracked,
            momentum=buffer(x),
        )

    async def step(self, state: MoTEFState, peer: Peer) -> Tensor:
        def momentum(gradient: Tensor) -> Tensor:
            return state.momentum.lerp_(gradient, self.momentum_step if peer.round else 1.0)

        compressor = compressor_of(self.compression, Space.of(state.x, peer.layout))
        return await track(state, momentum, settled(self.consensus_step), compressor, peer)
