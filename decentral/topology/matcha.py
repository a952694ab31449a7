"""MATCHA (Wang et al. 2019, arXiv:1905.09435): matchings of a graph, each switched on and off by chance in each turn.

    W(t) = I - alpha sum_m B_m(t) L_m,   B_m(t) ~ Bernoulli(p_m)

L_m is the Laplacian of the m-th of the M matchings that the graph falls into. The probabilities p spend the budget C,
sum_m p_m <= C M, such that the mean graph is connected best: l_2(sum_m p_m L_m) is largest. The weight alpha makes
rho = ||E[W^2] - J|| least, with Lbar = sum_m p_m L_m, Ltilde = sum_m p_m (1 - p_m) L_m and

    E[W^2] = I - 2 alpha Lbar + alpha^2 (Lbar^2 + 2 Ltilde)

Unlike the paper's, it is at most 1 / (the largest degree), which keeps every weight of every draw nonnegative.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize_scalar

from decentral.errors import ConfigError
from decentral.seeding import turn_stream
from decentral.topology.interior_point import Barrier, along_edges, between_edges, laplacian, minimized
from decentral.topology.matchings import Edge
from decentral.topology.mixing import MixingMatrix, of_edges
from decentral.topology.stochastic import Floats, Integers

MOST_NODES, MOST_EDGES = 500, 2000
"""Each of some 50 iterations takes a dense matrix apart and compares all edges with each other: seconds in all."""

SHARES, WEIGHTS = 4, 6
"""Decimals of p / C and of alpha: machines that round differently must come to the same draws and the same weights."""

GAP = 1e-5
"""How far l_2 of the mean graph may be from the largest, in units of the budget."""


@dataclass(frozen=True, eq=False)
class Matcha:
    """The matchings, what each turn switches on, and the weight of all edges.

    Args:
        nodes: n.
        edges: `(E, 2)`, matching by matching.
        sizes: `(M,)`: how many edges each matching has.
        probabilities: `(M,)`.
        alpha: the weight of an edge that is switched on.
        rho: ||E[W^2] - J||, the factor by which the mean square distance to the mean shrinks in a turn, at least.
        seed: of the draws.
    """

    nodes: int
    edges: Integers
    sizes: Integers
    probabilities: Floats
    alpha: float
    rho: float
    seed: int

    def drawn(self, turn: int) -> MixingMatrix:
        """The mixing matrix of a turn, the same in every process."""
        on = turn_stream(self.seed, turn, "matcha").random(len(self.sizes)) < self.probabilities
        edges = self.edges[np.repeat(on, self.sizes)]
        return of_edges(edges, np.full(len(edges), self.alpha), self.nodes)


def matcha(matchings: Sequence[Sequence[Edge]], nodes: int, budget: float, seed: int) -> Matcha:
    """MATCHA on the matchings that a connected graph falls into.

    Args:
        matchings: at least one.
        nodes: n.
        budget: C, the mean share of matchings, in (0, 1].
        seed: of the draws.

    Raises:
        ConfigError: the graph is too large.
    """
    edges = np.array([edge for matching in matchings for edge in matching], dtype=np.int64)
    sizes = np.array([len(matching) for matching in matchings])
    if nodes > MOST_NODES or len(edges) > MOST_EDGES:
        raise ConfigError(
            f"schedule: matcha takes at most {MOST_NODES:,} nodes and {MOST_EDGES:,} edges, found {nodes:,} and "
            f"{len(edges):,}; use schedule: random-matchings"
        )
    probabilities = _probabilities(edges, sizes, nodes, budget)
    alpha, rho = _weight(edges, np.repeat(probabilities, sizes), nodes)
    return Matcha(nodes, edges, sizes, probabilities, alpha, rho, seed)


def _probabilities(edges: Integers, sizes: Integers, nodes: int, budget: float) -> Floats:
    """`(M,)`: argmax l_2(sum_m p_m L_m) subject to sum_m p_m <= budget M, 0 <= p <= 1, up to `SHARES` decimals."""
    if budget == 1:
        return np.ones(len(sizes))
    start = np.full(len(sizes), 0.9 * budget)
    second = np.linalg.eigvalsh(laplacian(edges, np.repeat(start, sizes), nodes))[1]
    cost = np.append(np.zeros(len(sizes)), -1.0)
    point = minimized(cost, _barrier(edges, sizes, nodes, budget), np.append(start, second / 2), gap=GAP * budget)
    return np.minimum(np.round(point[:-1] / budget, SHARES) * budget, 1.0)


def _weight(edges: Integers, probabilities: Floats, nodes: int) -> tuple[float, float]:
    """alpha, and the rho that it gives: least over 0 <= alpha <= 1 / the largest degree, where it is convex."""
    mean = laplacian(edges, probabilities, nodes)
    spread = mean @ mean + 2 * laplacian(edges, probabilities * (1 - probabilities), nodes)
    rest = np.eye(nodes) - 1 / nodes

    def rho(alpha: float) -> float:
        return float(np.linalg.eigvalsh(rest - 2 * alpha * mean + alpha**2 * spread)[-1])

    used = edges[probabilities > 0]
    most = 1 / int(np.bincount(used.ravel()).max())
    found = minimize_scalar(rho, bounds=(0, most), method="bounded", options={"xatol": 1e-8}).x
    alpha = min(round(float(found), WEIGHTS), most)
    return alpha, rho(alpha)


def _barrier(edges: Integers, sizes: Integers, nodes: int, budget: float) -> Barrier:
    """Of the points (p, g), `(M + 1,)`, with sum_m p_m L_m - g (I - J) >= 0 and p within its bounds."""
    firsts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    room = budget * len(sizes)

    def lifted(point: Floats) -> Floats:
        """sum_m p_m L_m + n J: the eigenvalue 0 of the vector of ones becomes n, and no other is larger."""
        return laplacian(edges, np.repeat(point[:-1], sizes), nodes) + 1.0

    def value(point: Floats) -> float:
        p, over = point[:-1], np.linalg.eigvalsh(lifted(point)) - point[-1]
        inside = np.concatenate([over, p, 1 - p, [room - p.sum()]])
        return -float(np.log(inside).sum()) if inside.min() > 0 else np.inf

    def derivatives(point: Floats) -> tuple[Floats, Floats]:
        p, left = point[:-1], room - point[:-1].sum()
        values, vectors = np.linalg.eigh(lifted(point))
        inverse = 1 / (values - point[-1])
        per_edge = along_edges(vectors, inverse, edges), along_edges(vectors, inverse**2, edges)
        along, mixed = (np.add.reduceat(one, firsts) for one in per_edge)
        squares = between_edges(vectors, inverse, edges) ** 2
        hessian = np.zeros((len(point), len(point)))
        hessian[:-1, :-1] = np.add.reduceat(np.add.reduceat(squares, firsts, axis=0), firsts, axis=1)
        hessian[:-1, :-1] += np.diag(1 / p**2 + 1 / (1 - p) ** 2) + 1 / left**2
        hessian[:-1, -1] = hessian[-1, :-1] = -mixed
        hessian[-1, -1] = (inverse**2).sum()
        gradient = np.append(1 / (1 - p) - 1 / p + 1 / left - along, inverse.sum())
        return gradient, hessian

    return Barrier(value, derivatives, parameter=nodes + 2 * len(sizes) + 1)
