"""BEER: gradient tracking over public copies, of the models and of what is tracked, kept up by compressed differences.

With W the mixing matrix, eta the learning rate, G'_k the minibatch gradients of round k at X^k, C a contractive
compressor and gamma the consensus step, stacked by nodes:

    X^(k+1) = X^k + gamma (W - I) H^k - eta V^k;    V^(k+1) = V^k + gamma (W - I) G^k + G'_(k+1) - G'_k
    H^(k+1) = H^k + C(X^(k+1) - H^k);               G^(k+1) = G^k + C(V^(k+1) - G^k)

`- eta V` stands for the step of whichever local optimizer is chosen, so V is in units of gradients and a change of eta
leaves it valid. The mean of V is the mean gradient in every round.

    V        state.tracked       c  state.correction    V - G', of which the sum over all nodes is 0
    H        state.models.own    G  state.directions.own

The start is V^0 = G'_0, H^0 = X^0, which all nodes have, and G^0 = C(V^0), as in all later rounds. The authors' code
has H^0 = G^0 = 0, whose first rounds differ. From this start, without compression and with gamma = 1, it is gradient
tracking in the order adapt-while-communicate, and as there what round k sends is known before its gradient, which hides
it: what X^k and V^(k-1) change in H and G.

Reference: Zhao, Li, Li, Richtarik and Chi 2022 (arXiv:2201.13320), Algorithm 1.
"""

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from decentral.algorithms.algorithm import Algorithm, State, buffer
from decentral.algorithms.flow import correction
from decentral.algorithms.public_copy import PublicCopy, contractive, settled
from decentral.algorithms.public_flow import PublicFlow
from decentral.compression import Named, Space, compressor_of
from decentral.peer import Peer
from decentral.topology.lazy import refuse_changing
from decentral.topology.stochastic import Kind
from decentral.topology.topology import Topology


@dataclass(slots=True)
class BEERState(State):
    models: PublicCopy
    directions: PublicFlow
    correction: Tensor  # (d,) c
    tracked: Tensor  # (d,) V, and between rounds the last round's


@dataclass(frozen=True, kw_only=True)
class BEER(Algorithm):
    mixing: ClassVar[Kind] = "symmetric"

    compression: Named
    consensus_step: float | Literal["auto"] = "auto"  # gamma, which is known before the first round

    @property
    def starts_alike(self) -> bool:
        return True

    def suited(self, graph: Topology) -> tuple[Topology, str]:
        refuse_changing(graph, type(self).__name__)
        return graph, ""

    def init(self, x: Tensor, peer: Peer) -> BEERState:
        return BEERState(**self._start(x, peer))

    def _start(self, x: Tensor, peer: Peer) -> dict[str, Any]:
        """The fields of the State before the first round."""
        compressor, tracked = contractive(self.compression, x, peer, torch.float64), buffer(x)
        return {
            "x": x,
            "local": self.local.bind(x, peer.layout),
            "models": PublicCopy.of(x, compressor, peer),
            "directions": PublicFlow.of(tracked, compressor, peer, place=1),
            "correction": correction(x),
            "tracked": tracked,
        }

    async def step(self, state: BEERState, peer: Peer) -> Tensor:
        compressor = compressor_of(self.compression, Space.of(state.x, peer.layout))
        gamma = settled(self.consensus_step)
        state.models.messages(state.x, compressor, peer)
        packed = state.directions.pack(state.tracked, compressor, peer)
        ticket = await peer.post((state.models.packed, packed))
        loss, gradient = await peer.gradient(state.x)
        received = await peer.collect(ticket)
        state.models.receive(received, compressor, peer)
        state.directions.receive(received, compressor, peer)
        state.correction.add_(state.directions.flow, alpha=gamma)
        torch.add(state.correction, self._followed(gradient, state, peer), out=state.tracked)
        # The optimizer may overwrite what it steps with, and V is still to be sent.
        state.local.step(gradient.copy_(state.tracked))
        state.models.pull_(state.x, gamma, peer)
        return loss

    def _followed(self, gradient: Tensor, state: Any, peer: Peer) -> Tensor:  # noqa: ARG002  for others than BEER
        """What of a node's gradient `(d,)` V tracks the mean of."""
        return gradient
