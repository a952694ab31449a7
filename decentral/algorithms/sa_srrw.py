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

    theta  token.x       x  token.counts       a  gamma_decay       b  decay

Reference: Hu, Doshi and Eun 2024 (arXiv:2401.09665); Doshi, Hu and Eun 2023 (arXiv:2305.05097).
"""

from dataclasses import dataclass

from torch import Tensor

from decentral.algorithms.random_walk_sgd import RandomWalkSGD


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
