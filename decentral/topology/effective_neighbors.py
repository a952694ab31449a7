"""The effective number of neighbors n_W(gamma), after Vogels, Hendrikx and Jaggi 2022 (arXiv:2206.03093), section 3.

A random walk on the nodes, which forgets at the rate gamma in [0, 1):

    y^{t+1} = W (sqrt(gamma) y^t + xi^t),   xi^t ~ N(0, I_n)
    n_W(gamma) = 1 / (1 - gamma) / lim_t (1/n) sum_i Var[y_i^t]

Alone a node has n_W = 1; with exact averaging in each turn n_W = n. gamma -> 0 gives n / ||W||_F^2, the immediate
neighborhood; gamma -> 1 gives n wherever all nodes are connected. The variance of the worst node in place of the mean
over nodes gives `worst`. It is defined for doubly stochastic matrices. How the variance is found, by the case:

    static, symmetric, n <= 2000     (1/n) sum_k l_k^2 / (1 - gamma l_k^2), all eigenvalues (quadrature.py)
    static, symmetric, larger        the same sum by Lanczos quadrature from random vectors (quadrature.py)
    directed or periodic, n <= 256   C = gamma W C W^T + W W^T, lifted over a period (covariance.py)
    drawn, n <= 256                  the same with the mean over sampled turns (covariance.py)
    other                            random vectors carried through the turns (probes.py)
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import inf
from typing import NamedTuple

from decentral.errors import ConfigError
from decentral.topology import covariance, probes, quadrature
from decentral.topology.contraction import turns_of
from decentral.topology.spectrum import EXACT_NODES
from decentral.topology.topology import Topology

LIFTED_NODES = 256
"""Up to here covariances are `(n, n)` matrices."""


class Neighbors(NamedTuple):
    """n_W at one gamma; a drawn or sampled one is an estimate."""

    mean: float
    worst: float | None  # None: not known of single nodes


@dataclass(frozen=True)
class EffectiveNeighbors:
    """n_W of a topology, at any gamma up to a largest.

    Args:
        variance: the walk's variance at a gamma: the mean over the nodes, and the worst node's where known.
        method: how it is found, as a sentence; also what is estimated.
        largest_gamma: above it the answer would not be sound.
    """

    variance: Callable[[float], tuple[float, float | None]]
    method: str
    largest_gamma: float = inf

    def at(self, gamma: float) -> Neighbors | None:
        """n_W(gamma); None above `largest_gamma`.

        Raises:
            ConfigError: gamma is not in [0, 1).
        """
        check_gamma(gamma)
        if gamma > self.largest_gamma:
            return None
        mean, worst = self.variance(gamma)
        return Neighbors(1 / (1 - gamma) / mean, None if worst is None else 1 / (1 - gamma) / worst)


def effective_neighbors(topology: Topology) -> EffectiveNeighbors:
    """n_W of a topology.

    Raises:
        ConfigError: its matrices are not doubly stochastic.
    """
    schedule, turns = topology.schedule, turns_of(topology.schedule)
    if schedule.kind == "column-stochastic":
        raise ConfigError(
            "n_W is defined for doubly stochastic matrices, found column-stochastic ones; with push-sum the nodes "
            "weigh differently, and which of them counts for how much is what n_W would have to say"
        )
    if schedule.period == 1 and schedule.kind == "symmetric":
        exact = topology.nodes <= EXACT_NODES
        return EffectiveNeighbors(*(quadrature.exact if exact else quadrature.estimated)(turns[0].sparse))
    matrices = [turn.sparse for turn in turns]
    if topology.nodes > LIFTED_NODES:
        return EffectiveNeighbors(*probes.carried(matrices, drawn=schedule.period is None))
    if schedule.period is None:
        return EffectiveNeighbors(*covariance.expected(matrices))
    return EffectiveNeighbors(*covariance.lifted(matrices))


def check_gamma(gamma: float) -> None:
    """Raise ConfigError unless gamma is in [0, 1)."""
    if not 0 <= gamma < 1:
        raise ConfigError(
            f"gamma={gamma:g}; required: 0 or more and below 1, the share of its own past that the walk keeps per turn"
        )
