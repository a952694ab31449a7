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

from torch import Tensor

from decentral.algorithms.algorithm import buffer
from decentral.algorithms.beer import BEER, BEERState
from decentral.peer import Peer


@dataclass(slots=True)
class MoTEFState(BEERState):
    momentum: Tensor  # (d,) M


@dataclass(frozen=True, kw_only=True)
class MoTEF(BEER):
    momentum_step: float = 0.1  # lambda

    def init(self, x: Tensor, peer: Peer) -> MoTEFState:
        return MoTEFState(**self._start(x, peer), momentum=buffer(x))

    def _followed(self, gradient: Tensor, state: MoTEFState, peer: Peer) -> Tensor:
        return state.momentum.lerp_(gradient, self.momentum_step if peer.round else 1.0)
