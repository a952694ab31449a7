"""LEAD: a primal-dual method that sends compressed differences and still reaches the optimum of unequal data.

With W the mixing matrix, eta the learning rate, g_i node i's minibatch gradient at x_i with its weight decay in it and
C an unbiased compressor, stacked by nodes:

    Y  = X - eta G - eta D
    Q  = C(Y - H);    Yhat = H + Q;    Yhat_w = H_w + W Q
    H+ = (1 - alpha) H + alpha Yhat;    H_w+ = (1 - alpha) H_w + alpha Yhat_w            so that H_w = W H
    D+ = D + gamma / (2 eta) (Yhat - Yhat_w)                                             D = 0 before the first round
    X+ = X - eta G - eta D+

At the end D is minus the gradient, each node's own, whose sum is 0 at the optimum; so Y - H tends to 0 and the
compression's error with it. D is in units of gradients: a change of eta leaves it valid. H is x^0 at first, which all
nodes have. Without compression and with gamma = alpha = 1 it is Exact Diffusion.

    D   state.dual, of which the sum over all nodes is 0    H          state.copy.own
    Y   state.ahead                                         H_w - H    state.copy.flow

What is kept is H_w - H, so Yhat_w - Yhat is that plus (W - I) Q. The larger C's variance, the smaller alpha and gamma
must be. The paper's alpha = 0.5 and gamma = 1 are for five values a number, 0, 1/2 and 1 with signs, which it calls 2
bits. For the fifteen of 4 bits they do as well; with the three that 2 bits have here an MLP on digits diverges, and
learns with alpha = 0.1 and gamma = 0.2.

Reference: Liu, Li, Wang, Tang and Yan 2021 (arXiv:2007.00232), Algorithm 1.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from decentral.algorithms.algorithm import Algorithm, State, buffer
from decentral.algorithms.flow import correction
from decentral.algorithms.public_copy import unbiased
from decentral.algorithms.public_flow import PublicFlow
from decentral.algorithms.quasi_global_momentum import FLOOR
from decentral.compression import Named, Space, compressor_of
from decentral.peer import Peer
from decentral.topology.lazy import refuse_changing
from decentral.topology.stochastic import Kind
from decentral.topology.topology import Topology


@dataclass(slots=True)
class LEADState(State):
    copy: PublicFlow
    dual: Tensor  # (d,) D
    ahead: Tensor  # (d,) scratch: Y


@dataclass(frozen=True, kw_only=True)
class LEAD(Algorithm):
    mixing: ClassVar[Kind] = "symmetric"
    owns_step: ClassVar[bool] = True

    compression: Named
    consensus_step: float = 1.0  # gamma
    copy_step: float = 0.5  # alpha

    @property
    def starts_alike(self) -> bool:
        return True

    def suited(self, graph: Topology) -> tuple[Topology, str]:
        refuse_changing(graph, "LEAD")
        return graph, ""

    def init(self, x: Tensor, peer: Peer) -> LEADState:
        copy = PublicFlow.of(x, unbiased(self.compression, x, peer, torch.float64), peer)
        local = self.local.bind(x, peer.layout)
        return LEADState(x=x, local=local, copy=copy, dual=correction(x), ahead=buffer(x))

    async def step(self, state: LEADState, peer: Peer) -> Tensor:
        compressor = compressor_of(self.compression, Space.of(state.x, peer.layout))
        loss, gradient = await peer.gradient(state.x)
        lr = state.local.lr
        state.x.add_(state.local.decay_(gradient), alpha=-lr)
        torch.add(state.x, state.dual, alpha=-lr, out=state.ahead)
        packed = state.copy.pack(state.ahead, compressor, peer, self.copy_step)
        received = await peer.exchange((packed,))
        share = -self.consensus_step / (2 * max(lr, FLOOR))
        state.dual.add_(state.copy.flow, alpha=share)
        state.copy.add_(state.dual, share, received, compressor, peer)
        state.copy.receive(received, compressor, peer, self.copy_step)
        state.x.add_(state.dual, alpha=-lr)
        return loss
