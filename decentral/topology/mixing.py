"""Mixing matrices: row i holds the weights that node i applies to what it receives.

A gossip step is x_i <- sum_j w_ij x_j. On an undirected graph every matrix made here is nonnegative, symmetric and
doubly stochastic, so the step preserves the mean of all nodes and never widens their disagreement (Boyd et al. 2006,
Randomized gossip algorithms). On a directed graph the edge j -> i lets w_ij be other than 0: what the senders' weights
alone sum to is 1, and the mean is preserved where the receivers' do so too. Weights live on the graph's edges; a
node's own weight is what remains to 1.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import networkx as nx
import numpy as np
from scipy.sparse import coo_array, csc_array, csr_array

from decentral.errors import ConfigError, nearest
from decentral.topology.fastest_mixing import fastest_weights
from decentral.topology.stochastic import TOLERANCE, Floats, Integers, Kind, kind_of, row_sums


class Row(NamedTuple):
    """A node's row of the mixing matrix: the weight of what it receives from each neighbor, and of its own."""

    node: int
    weights: Mapping[int, float]  # ascending node numbers, its own among them
    to: tuple[int, ...]  # whom it sends to, ascending; on an undirected graph the same as `sources`

    @property
    def sources(self) -> tuple[int, ...]:
        """Whom it receives from, ascending."""
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

    @cached_property
    def kind(self) -> Kind:
        """What it is.

        Raises:
            ConfigError: an entry is negative or not finite, or a column does not sum to 1.
        """
        return kind_of(self.sparse)

    @cached_property
    def _by_column(self) -> csc_array:
        return self.sparse.tocsc()

    def row(self, node: int) -> Row:
        """Row `node`, its own weight always included."""
        stored = slice(self.sparse.indptr[node], self.sparse.indptr[node + 1])
        columns, values = self.sparse.indices[stored].tolist(), self.sparse.data[stored].tolist()
        weights = {node: 0.0} | dict(zip(columns, values, strict=True))
        return Row(node, dict(sorted(weights.items())), self._receivers(node))

    def _receivers(self, node: int) -> tuple[int, ...]:
        columns = self._by_column
        stored = columns.indices[columns.indptr[node] : columns.indptr[node + 1]].tolist()
        return tuple(sorted(j for j in stored if j != node))

    def dense(self) -> Floats:
        """W as an `(n, n)` array."""
        return np.asarray(self.sparse.toarray())


def metropolis(graph: nx.Graph) -> MixingMatrix:
    """w_ij = 1 / (1 + max(deg_i, deg_j)): doubly stochastic on any undirected graph (Xiao, Boyd and Kim 2007).

    Raises:
        ConfigError: the graph is directed.
    """
    if graph.is_directed():
        raise ConfigError(
            "weights: metropolis are symmetric and need an undirected graph, found a directed one; use weights: "
            "column-stochastic with push-sum, uniform where every node has as many edges in as out, or given"
        )
    edges = _edges(graph)
    degrees = np.bincount(edges.ravel(), minlength=len(graph))
    return of_edges(edges, 1 / (1 + degrees[edges].max(axis=1)), len(graph))


def uniform(graph: nx.Graph) -> MixingMatrix:
    """w_ij = w_ii = 1 / (1 + deg), which is doubly stochastic only where all degrees, in and out, are equal.

    Raises:
        ConfigError: the graph is not regular.
    """
    arcs = _arcs(graph)
    degrees = np.stack([np.bincount(ends, minlength=len(graph)) for ends in arcs.T])
    found = np.unique(degrees)
    if len(found) > 1:
        other = "column-stochastic, with push-sum" if graph.is_directed() else "metropolis"
        raise ConfigError(
            f"weights: uniform needs a regular graph, found degrees {_listed(found)}; use weights: {other}"
        )
    weight = 1 / (1 + float(found[0]))
    return _assembled(arcs, np.full(len(arcs), weight), np.full(len(graph), weight))


def column_stochastic(graph: nx.Graph) -> MixingMatrix:
    """w_ij = 1 / (1 + outdeg_j), what node j shares out equally: for push-sum (Nedic and Olshevsky 2016)."""
    arcs = _arcs(graph)
    shares = 1 / (1 + np.bincount(arcs[:, 0], minlength=len(graph)))
    return _assembled(arcs, shares[arcs[:, 0]], shares)


def given(graph: nx.Graph) -> MixingMatrix:
    """w_ij = the `weight` of the edge j -> i; w_jj = the self-loop's where there is one, else what j's leave of 1.

    Raises:
        ConfigError: an edge has no weight or weight 0, or the weights of a node's edges exceed 1 or do not sum to 1
            with its self-loop's.
    """
    arcs = _arcs(graph)
    weights = np.array([_given_weight(graph, i, j) for i, j in arcs.tolist()], dtype=np.float64)
    own = 1 - _sent(arcs, weights, len(graph))
    own[np.abs(own) <= TOLERANCE] = 0.0
    for node, _, weight in nx.selfloop_edges(graph, data="weight"):
        own[node] = own[node] if weight is None else weight
    node = int(own.argmin())
    if own[node] < 0:
        raise ConfigError(
            f"the edges of node {node} have weights that sum to {1 - own[node]:.6g}, which leaves {own[node]:.6g} for "
            "itself; required at most 1: lower them, or use weights: metropolis"
        )
    return _assembled(arcs, weights, own)


def fastest(graph: nx.Graph) -> MixingMatrix:
    """The weights that mix fastest, approximately: max(|l_2|, |l_n|) is least to within 1e-6 (`fastest_weights`).

    Raises:
        ConfigError: the graph is directed, not connected, or too large.
    """
    if graph.is_directed():
        raise ConfigError("weights: fastest are symmetric and need an undirected graph, found a directed one")
    if not nx.is_connected(graph):
        raise ConfigError(
            "weights: fastest needs a graph that is connected in each turn, found one that is not; use metropolis"
        )
    edges = _edges(graph)
    return of_edges(edges, fastest_weights(edges, len(graph)), len(graph))


WEIGHTS: dict[str, Callable[[nx.Graph], MixingMatrix]] = {
    "metropolis": metropolis,
    "uniform": uniform,
    "given": given,
    "column-stochastic": column_stochastic,
    "fastest": fastest,
}


def mixing_matrix(graph: nx.Graph, weights: str) -> MixingMatrix:
    """The mixing matrix of a checked graph by one of `WEIGHTS`.

    Raises:
        ConfigError: unknown weights, or weights that this graph does not allow.
    """
    if weights not in WEIGHTS:
        raise ConfigError(f"unknown weights {weights!r}{nearest(weights, WEIGHTS)}")
    return WEIGHTS[weights](graph)


def of_edges(edges: Integers, weights: Floats, nodes: int) -> MixingMatrix:
    """The symmetric matrix of undirected edges `(E, 2)` with weights `(E,)`; a node keeps what they leave of 1."""
    arcs, both = np.concatenate([edges, edges[:, ::-1]]), np.tile(weights, 2)
    own = 1 - _sent(arcs, both, nodes)
    own[np.abs(own) <= TOLERANCE] = 0.0
    return _assembled(arcs, both, own)


def _edges(graph: nx.Graph) -> Integers:
    """`(E, 2)`: the edges without self-loops."""
    return np.array([(i, j) for i, j in graph.edges if i != j], dtype=np.int64).reshape(-1, 2)


def _arcs(graph: nx.Graph) -> Integers:
    """`(A, 2)`: sender and receiver; an undirected edge is two arcs."""
    edges = _edges(graph)
    return edges if graph.is_directed() else np.concatenate([edges, edges[:, ::-1]])


def _sent(arcs: Integers, weights: Floats, nodes: int) -> Floats:
    """`(n,)`: the sum of the weights of what each node sends."""
    return row_sums(csr_array(coo_array((weights, (arcs[:, 0], arcs[:, 1])), shape=(nodes, nodes))))


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


def _assembled(arcs: Integers, weights: Floats, own: Floats) -> MixingMatrix:
    """Checked, from the weights of the arcs `(A, 2)` and of the nodes' own `(n,)`."""
    nodes = np.arange(len(own))
    rows, columns = np.concatenate([arcs[:, 1], nodes]), np.concatenate([arcs[:, 0], nodes])
    entries = coo_array((np.concatenate([weights, own]), (rows, columns)), shape=(len(own), len(own)))
    matrix = MixingMatrix(csr_array(entries))
    matrix.sparse.sort_indices()
    _ = matrix.kind  # found once, and here, where a fault is to be told
    return matrix
