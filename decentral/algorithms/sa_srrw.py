"""SA-SRRW: stochastic approximation along a self-repellent random walk, whose visits have less variance.

With X_n the node of visit n = 1, 2, ..., K[x] the self-repellent kernel of `topology.walks`, e_i the i-th unit vector,
g_i node i's minibatch gradient at theta and eta the learning rate:

    X_n     ~  K[x](X_(n-1), .)
    x+      =  x + gamma_n (e_{X_n} - x),             gamma_n = (n + 1)^-a;  x = mu before the first visit
    theta+  =  theta - eta beta_n g_{X_n}(theta),     beta_n  = (n + 1)^-b

`- g` stands for one of the steps of `token_steps`. There are three cases: (i) a < b, where the variance of theta falls
as 1 / alpha^2 asymptotically; (ii) a = b, where it falls as 1 / alpha; (iii) a > b, where alpha gains nothing. With
a = 1 the visits are counted, fake ones at the start among them: gamma_n = 1 / (n + N) for N fake visits of all nodes.
Alpha = 0 is random-walk SGD over the kernel `metropolis`, bit for bit.

Where nodes keep their own counts, no node can shrink those of all others at a visit. As the kernel knows x up to a
factor only, visit n raises the count of its node instead, by gamma_n / prod_{m <= n} (1 - gamma_m), and counts are kept
as logarithms. They are the same shares x, but for rounding.

    theta  token.x       x  token.counts       a  gamma_decay       b  decay

Reference: Hu, Doshi and Eun 2024 (arXiv:2401.09665); Doshi, Hu and Eun 2023 (arXiv:2305.05097).
"""

from dataclasses import dataclass
from functools import cache
from math import log

import numpy as np
from torch import Tensor

from decentral.algorithms.random_walk_sgd import RandomWalkSGD
from decentral.topology.hops import Floats

BLOCK = 2**14
"""Visits whose products are computed at once."""


@dataclass(frozen=True, kw_only=True)
class SASRRW(RandomWalkSGD):
    kernel: str = "srrw"
    alpha: float = 5.0
    decay: float = 0.9  # b
    gamma_decay: float = 0.8  # a

    def counts(self) -> Tensor | None:
        counts = super().counts()
        return counts if counts is None or self.gamma_decay == 1 else counts.div_(counts.sum())

    def count(self, counts: Tensor, visit: int, node: int) -> None:
        if self.gamma_decay == 1:
            super().count(counts, visit, node)
            return
        gamma = (visit + 2) ** -self.gamma_decay
        counts.mul_(1 - gamma)[node] += gamma

    @property
    def log_tallies(self) -> bool:
        return self.gamma_decay < 1

    def tally_after(self, tally: float, visit: int) -> float:
        if not self.log_tallies:
            return super().tally_after(tally, visit)
        shrunk = _log_shrinkage(self.gamma_decay, visit // BLOCK)[visit % BLOCK]
        return float(np.logaddexp(tally, -self.gamma_decay * log(visit + 2) - shrunk))


@cache
def _log_shrinkage(a: float, block: int) -> Floats:
    """`(BLOCK,)` log prod_{m <= n} (1 - (m + 2)^-a), for each n of a block."""
    before = _log_shrinkage(a, block - 1)[-1] if block else 0.0
    visits = np.arange(block * BLOCK, (block + 1) * BLOCK)
    return np.asarray(np.cumsum(np.append(before, np.log1p(-((visits + 2.0) ** -a))))[1:])
