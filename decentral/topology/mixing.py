"""Mixing matrices: row i holds the weights that node i applies to what it receives.

A gossip step is x_i <- sum_j w_ij x_j. Every matrix made here is nonnegative, symmetric and doubly stochastic, so the
step preserves the mean of all nodes and never widens their disagreement (Boyd et al. 2006, Randomized gossip
algorithms). Weights live on the graph's edges; a node's own weight is what remains to 1.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import networkx as nx
import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array, csr_array

from decentral.errors import ConfigError, nearest
from decentral.topology.stochastic import TOLERANCE, Floats, check, row_sums

Integers = NDArray[np.int64]


class Row(NamedTuple):
    """A node's row of the mixing matrix: the weight of what it receives from each neighbor, and of its own."""

    node: int
    weights: Mapping[int, float]  # ascending node numbers, its own among them

    @property
    def neighbors(self) -> tuple[int, ...]:
        return tuple(j for j in self.weights if j != self.node)


@dataclass(frozen=True, eq=False)
class MixingMatrix:
    """A mixing matrix W of shape (n, n), stored by its nonzero pattern.

    Args:
        sparse: `(n, n)` float64; an edge is a stored entry, whatever its value.
    """

    sparse: csr_array

    @property
    def n(self) -> int:
        return int(self.sparse.shape[0])

    def row(self, node: int) -> Row:
        """Row `node`, its own weight always included."""
        stored = slice(self.sparse.indptr[node], self.sparse.indptr[node + 1])
        columns, values = self.sparse.indices[stored].tolist(), self.sparse.data[stored].tolist()
        weights = {node: 0.0} | dict(zip(columns, values, strict=True))
        return Row(node, dict(sorted(weights.items())))

    def dense(self) -> Floats:
        """W as an `(n, n)` array."""
        return np.asarray(self.sparse.toarray())


def metropolis(graph: nx.Graph) -> MixingMatrix:
    """w_ij = 1 / (1 + max(deg_i, deg_j)): doubly stochastic on any graph (Xiao, Boyd and Kim 2007)."""
    edges = _edges(graph)
    weights = 1 / (1 + _degrees(graph, edges)[edges].max(axis=1))
    return _assembled(edges, weights, 1 - _received(graph, edges, weights))


def uniform(graph: nx.Graph) -> MixingMatrix:
    """w_ij = w_ii = 1 / (1 + deg), which is doubly stochastic only where all degrees are equal.

    Raises:
        ConfigError: the graph is not regular.
    """
    edges = _edges(graph)
    degrees = _degrees(graph, edges)
    found = np.unique(degrees)
    if len(found) > 1:
        raise ConfigError(
            f"weights: uniform needs a regular graph, found degrees {_listed(found)}; use weights: metropolis"
        )
    weight = 1 / (1 + float(found[0]))
    return _assembled(edges, np.full(len(edges), weight), np.full(len(degrees), weight))


def given(graph: nx.Graph) -> MixingMatrix:
    """w_ij = the edge's `weight`; w_ii = the self-loop's `weight` where there is one, else what remains to 1.

    Raises:
        ConfigError: an edge has no weight or weight 0, the weights of a node's edges exceed 1 or do not sum to 1 with
            its self-loop's, or the matrix has the eigenvalue -1.
    """
    edges = _edges(graph)
    weights = np.array([_given_weight(graph, i, j) for i, j in edges.tolist()], dtype=np.float64)
    own = 1 - _received(graph, edges, weights)
    own[np.abs(own) <= TOLERANCE] = 0.0
    for node, _, weight in nx.selfloop_edges(graph, data="weight"):
        own[node] = own[node] if weight is None else weight
    node = int(own.argmin())
    if own[node] < 0:
        raise ConfigError(
            f"the edges of node {node} have weights that sum to {1 - own[node]:.6g}, which leaves {own[node]:.6g} for "
            "itself; required at most 1: lower them, or use weights: metropolis"
        )
    if len(own) > 1 and not own.any() and nx.is_bipartite(graph):
        raise ConfigError(
            "no node keeps any weight for itself and the graph is bipartite, so its two sides swap models for ever "
            "(eigenvalue -1); give the edges less weight"
        )
    return _assembled(edges, weights, own)


WEIGHTS: dict[str, Callable[[nx.Graph], MixingMatrix]] = {
    "metropolis": metropolis,
    "uniform": uniform,
    "given": given,
}


def mixing_matrix(graph: nx.Graph, weights: str) -> MixingMatrix:
    """The mixing matrix of a checked graph by one of `WEIGHTS`.

    Raises:
        ConfigError: unknown weights, or weights that this graph does not allow.
    """
    if weights not in WEIGHTS:
        raise ConfigError(f"unknown weights {weights!r}{nearest(weights, WEIGHTS)}")
    return WEIGHTS[weights](graph)


def _edges(graph: nx.Graph) -> Integers:
    """`(E, 2)`: the edges without self-loops."""
    return np.array([(i, j) for i, j in graph.edges if i != j], dtype=np.int64).reshape(-1, 2)


def _degrees(graph: nx.Graph, edges: Integers) -> Integers:
    return np.bincount(edges.ravel(), minlength=len(graph))


def _received(graph: nx.Graph, edges: Integers, weights: Floats) -> Floats:
    """`(n,)`: the sum of each node's edge weights."""
    i, j = edges.T
    both = np.concatenate([i, j]), np.concatenate([j, i])
    return row_sums(csr_array(coo_array((np.tile(weights, 2), both), shape=(len(graph), len(graph)))))


def _given_weight(graph: nx.Graph, i: int, j: int) -> Any:
    weight = graph.edges[i, j].get("weight")
    if not weight:
        found = "no weight" if weight is None else "weight 0, so nothing would flow along it"
        raise ConfigError(
            f"edge {i}-{j} has {found}; weights: given needs a positive weight on every edge: give it one, leave the "
            "edge out, or use weights: metropolis"
        )
    return weight


def _listed(degrees: Integers) -> str:
    shown = ", ".join(str(degree) for degree in degrees[:6].tolist())
    return shown if len(degrees) <= 6 else f"{shown}, ... {degrees[-1]}"


def _assembled(edges: Integers, weights: Floats, own: Floats) -> MixingMatrix:
    i, j = edges.T
    nodes = np.arange(len(own))
    rows, columns = np.concatenate([i, j, nodes]), np.concatenate([j, i, nodes])
    values = np.concatenate([weights, weights, own])
    matrix = MixingMatrix(csr_array(coo_array((values, (rows, columns)), shape=(len(own), len(own)))))
    matrix.sparse.sort_indices()
    check(matrix.sparse)
    return matrix
