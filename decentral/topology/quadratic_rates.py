"""The rate of decentralized SGD on the random quadratic of Vogels et al. 2022 (arXiv:2206.03093), section 4.

f(x) = E <d, x>^2 / 2 with d ~ N(0, I), one d a step and node, adapt-then-combine. The noise zeta is the number with
E ||d d^T x||^2 = zeta ||x||^2: zeta = dimension + 2 at batch size 1. Then E||x||^2 shrinks by 1 - r per step, where

    r = 1 - (1 - eta)^2 - (zeta - 1) eta^2 / n_W(gamma),   gamma = (1 - eta)^2 / (1 - r)

The learning rate eta and the forgetting gamma are tied: a small eta looks far into the graph, a large one at immediate
neighbors only. With v(gamma) = 1 / ((1 - gamma) n_W(gamma)), the variance of the random walk, both equations say

    eta = 1 / (1 +- sqrt((zeta - 1) gamma v(gamma))),   r = 1 - (1 - eta)^2 / gamma

(+ below eta = 1, - above), so the whole curve is drawn by letting gamma run through (0, 1): no fixed point is sought.
The variance is the worst node's, as in the authors' experiments, where it is known: where all nodes are alike the rate
is exact, elsewhere r is a lower bound.
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import exp, inf, isfinite, log, sqrt

import numpy as np
from scipy.optimize import brentq, minimize_scalar

from decentral.errors import ConfigError
from decentral.topology.effective_neighbors import EffectiveNeighbors

DEFAULT_NOISE = 50.0
"""zeta of the paper's figures."""

REACH = 23.0
"""gamma runs over 1 / (1 + exp(-u)) for |u| up to this: to within 1e-10 of 0 and of 1."""


@dataclass(frozen=True)
class Best:
    """The best learning rate, the rate there, and the learning rate from which on E||x||^2 grows."""

    learning_rate: float
    rate: float
    largest_stable: float


class QuadraticRates:
    """The rate over the learning rate on one topology.

    Args:
        neighbors: n_W of the topology.
        noise: zeta, above 1.

    Raises:
        ConfigError: noise is not above 1, or not finite.
    """

    def __init__(self, neighbors: EffectiveNeighbors, noise: float = DEFAULT_NOISE) -> None:
        check_noise(noise)
        self._neighbors, self._noise = neighbors, noise
        self._top = REACH
        if neighbors.largest_gamma < 1:
            self._top = min(REACH, log(neighbors.largest_gamma / (1 - neighbors.largest_gamma)))

    def rate(self, learning_rate: float) -> float | None:
        """r at a learning rate, negative where E||x||^2 grows; None where n_W is not known at the gamma it needs.

        Raises:
            ConfigError: the learning rate is not above 0, or not finite.
        """
        check_learning_rate(learning_rate)
        if abs(learning_rate - 1) < 1e-9:
            return 1 - (self._noise - 1) * self._variance(0.0)
        side = 1 if learning_rate < 1 else -1
        wanted = (1 / learning_rate - 1) / side  # sqrt((zeta - 1) gamma v)
        if self._spread(self._top) < wanted or self._spread(-REACH) > wanted:
            return None
        at = brentq(lambda u: log(self._spread(u)) - log(wanted), -REACH, self._top, xtol=1e-10)
        return 1 - self._shrink(at, side)

    def best(self) -> Best:
        """The best learning rate and the largest stable one; infinite where the whole range up to 2 is stable."""
        grid = np.linspace(-REACH / 2, self._top, 48)
        rates = [1 - self._shrink(u, 1) for u in grid]
        at = int(np.argmax(rates))
        around = grid[max(at - 1, 0)], grid[min(at + 1, len(grid) - 1)]
        found = minimize_scalar(lambda u: self._shrink(u, 1), bounds=around, method="bounded", options={"xatol": 1e-5})
        return Best(self._learning_rate(found.x, 1), 1 - float(found.fun), self._largest_stable(float(found.x)))

    def _largest_stable(self, best: float) -> float:
        """Where r = 0: below eta = 1 if r < 0 there, else above."""
        if self._shrink(-REACH, 1) >= 1:
            return self._learning_rate(_root(lambda u: self._shrink(u, 1) - 1, -REACH, best), 1)
        edge = _root(lambda u: self._spread(u) - 1, -REACH, self._top) if self._spread(self._top) > 1 else self._top
        edge -= 1e-6
        if self._shrink(edge, -1) <= 1:
            return inf
        return self._learning_rate(_root(lambda u: self._shrink(u, -1) - 1, -REACH, edge), -1)

    def _spread(self, u: float) -> float:
        """sqrt((zeta - 1) gamma v(gamma))."""
        gamma = 1 / (1 + exp(-u))
        return sqrt((self._noise - 1) * gamma * self._variance(gamma))

    def _variance(self, gamma: float) -> float:
        mean, worst = self._neighbors.variance(gamma)
        return mean if worst is None else worst

    def _learning_rate(self, u: float, side: int) -> float:
        return 1 / (1 + side * self._spread(u))

    def _shrink(self, u: float, side: int) -> float:
        """1 - r = (1 - eta)^2 / gamma = (zeta - 1) v eta^2."""
        spread = self._spread(u)
        return spread**2 * (1 + exp(-u)) / (1 + side * spread) ** 2


def check_noise(noise: float) -> None:
    """Raise ConfigError unless zeta is above 1."""
    if not (isfinite(noise) and noise > 1):
        raise ConfigError(
            f"noise={noise:g}; required: a number above 1, zeta = dimension + 2 of the quadratic at batch size 1"
        )


def check_learning_rate(learning_rate: float) -> None:
    """Raise ConfigError unless it is above 0."""
    if not (isfinite(learning_rate) and learning_rate > 0):
        raise ConfigError(f"lr={learning_rate:g}; required: a number above 0")


def _root(function: Callable[[float], float], low: float, high: float) -> float:
    return float(brentq(function, low, high, xtol=1e-9))
