"""Symmetric weights on a graph's edges that mix fastest: least rho = max(|l_2|, |l_n|) of W = I - sum_e w_e L_e.

Boyd, Diaconis and Xiao 2004, Fastest mixing Markov chain on a graph (SIAM Review 46), with their interior-point method:

    minimize s  subject to  -s I <= W - J <= s I,  w_e >= 0,  w_ii >= 0

where e = {i, j} has L_e = (e_i - e_j)(e_i - e_j)^T. The answer is approximate: its rho is within `GAP` of the least.
"""

import numpy as np

from decentral.errors import ConfigError
from decentral.topology.interior_point import Barrier, along_edges, between_edges, laplacian, minimized
from decentral.topology.stochastic import Floats, Integers

MOST_NODES, MOST_EDGES = 200, 1000
"""Each of some 100 iterations takes a dense matrix apart and solves a dense system in all edges: seconds at most."""

GAP = 1e-6
"""How far rho may be from the least one."""


def fastest_weights(edges: Integers, nodes: int) -> Floats:
    """`(E,)`: the weights of the undirected edges `(E, 2)` of a connected graph, with rho within `GAP` of the least.

    It is no larger than that of Metropolis weights, or of the best weight that is equal on all edges and leaves no
    node a negative weight of its own.

    Raises:
        ConfigError: more than `MOST_NODES` nodes or `MOST_EDGES` edges.
    """
    if nodes > MOST_NODES or len(edges) > MOST_EDGES:
        raise ConfigError(
            f"weights: fastest takes at most {MOST_NODES} nodes and {MOST_EDGES:,} edges, found {nodes:,} and "
            f"{len(edges):,}; use weights: metropolis with scaling: optimal"
        )
    if not len(edges):
        return np.zeros(0)
    degrees = np.bincount(edges.ravel(), minlength=nodes)
    metropolis = 1 / (1 + degrees[edges].max(axis=1))
    solved = minimized(
        np.append(np.zeros(len(edges)), 1.0), _barrier(edges, nodes), np.append(metropolis, 1.0), GAP / 2
    )[:-1]
    return min((solved, metropolis, _constant(edges, nodes)), key=lambda weights: _rho(edges, weights, nodes))


def _rho(edges: Integers, weights: Floats, nodes: int) -> float:
    return float(np.linalg.norm(np.eye(nodes) - laplacian(edges, weights, nodes) - 1 / nodes, 2))


def _constant(edges: Integers, nodes: int) -> Floats:
    """2 / (mu_2 + mu_n) of the Laplacian's eigenvalues, at most 1 / the largest degree (Xiao and Boyd 2004)."""
    values = np.linalg.eigvalsh(laplacian(edges, np.ones(len(edges)), nodes))
    weight = min(2 / (values[1] + values[-1]), 1 / np.bincount(edges.ravel()).max())
    return np.full(len(edges), weight)


def _barrier(edges: Integers, nodes: int) -> Barrier:
    """Of the points (w, s), `(E + 1,)`: -log det(s I - W + J) - log det(s I + W - J) - sum log w_e - sum log w_ii."""
    meets = np.zeros((nodes, len(edges)))
    meets[edges.T, np.arange(len(edges))] = 1.0

    def off(point: Floats) -> Floats:
        return np.eye(nodes) - laplacian(edges, point[:-1], nodes) - 1 / nodes

    def value(point: Floats) -> float:
        own, values = 1 - meets @ point[:-1], np.linalg.eigvalsh(off(point))
        inside = np.concatenate([point[:-1], own, point[-1] - values, point[-1] + values])
        return -float(np.log(inside).sum()) if inside.min() > 0 else np.inf

    def derivatives(point: Floats) -> tuple[Floats, Floats]:
        weights, own = point[:-1], 1 - meets @ point[:-1]
        gradient = np.append(meets.T @ (1 / own) - 1 / weights, 0.0)
        hessian = np.zeros((len(point), len(point)))
        hessian[:-1, :-1] = (meets.T / own**2) @ meets + np.diag(1 / weights**2)
        values, vectors = np.linalg.eigh(off(point))
        for sign in (1, -1):
            inverse = 1 / (point[-1] - sign * values)
            gradient -= np.append(sign * along_edges(vectors, inverse, edges), inverse.sum())
            mixed = sign * along_edges(vectors, inverse**2, edges)
            hessian[:-1, :-1] += between_edges(vectors, inverse, edges) ** 2
            hessian[:-1, -1] += mixed
            hessian[-1, :-1] += mixed
            hessian[-1, -1] += (inverse**2).sum()
        return gradient, hessian

    return Barrier(value, derivatives, parameter=3 * nodes + len(edges))
