"""A walk on a whole graph: what each node knows of it, and the paths of its tokens in one go."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import networkx as nx
import numpy as np

from decentral.errors import ConfigError, nearest
from decentral.topology import hops
from decentral.topology.hops import Floats, Integers
from decentral.topology.walks import KERNELS, Surroundings, Walk, key

TOLERANCE = 1e-9
"""How far a target may be from the degrees, relatively, to pass as them."""

Target = Literal["uniform", "degree"] | Sequence[float] | Floats


@dataclass(frozen=True, eq=False)
class Chain:
    """A walk on a graph, for a target. Node i's neighbors are the entries `starts[i]:starts[i + 1]` of the others.

    Args:
        walk: how it hops.
        target: `(n,)` mu, what the share of visits approaches; it sums to 1.
        starts: `(n + 1,)`.
        neighbors: `(A,)` ascending at each node.
        widths: `(A,)` w_ij.
        log_rates: `(A,)` log r_ij.
    """

    walk: Walk
    target: Floats
    starts: Integers
    neighbors: Integers
    widths: Floats
    log_rates: Floats

    @property
    def n(self) -> int:
        return len(self.target)

    @cached_property
    def log_target(self) -> Floats:
        """`(n,)` log (n mu_i), so that a uniform target is all zeros."""
        return np.log(self.n * self.target)

    def neighbors_of(self, node: int) -> list[int]:
        """Ascending."""
        own: list[int] = self.neighbors[self.starts[node] : self.starts[node + 1]].tolist()
        return own

    def parts(self, among: Collection[int]) -> list[list[int]]:
        """Some nodes, by what of the graph between them hangs together; each part ascending."""
        left, parts = set(among), list[list[int]]()
        while left:
            part = [left.pop()]
            for reached in part:  # it grows meanwhile
                further = left.intersection(self.neighbors_of(reached))
                left -= further
                part += further
            parts.append(sorted(part))
        return sorted(parts)

    def initial_counts(self) -> Floats:
        """`(n,)` x before the first visit: fake visits in the proportions of the target, so that K[x] = P."""
        return np.asarray(self.walk.fake_visits * self.n * self.target)

    def surroundings(self, node: int) -> Surroundings:
        """What `node` knows for good."""
        own = slice(self.starts[node], self.starts[node + 1])
        log_target = np.append(self.log_target[self.neighbors[own]], self.log_target[node])
        return Surroundings(self.walk, node, self.neighbors[own], self.widths[own], self.log_rates[own], log_target)

    def path(self, seed: int, token: int, visits: int) -> Integers:
        """`(visits,)`: the nodes that a token visits if its counts begin afresh."""
        path, kind = np.empty(visits, dtype=np.int64), KERNELS[self.walk.kernel].kind
        arcs = (self.starts, self.neighbors, self.widths, self.log_rates)
        hops.tread(kind, self.walk.alpha, *arcs, self.log_target, self.initial_counts(), key(seed, token), path)
        return path


def chain(graph: nx.Graph, walk: Walk, target: Target | None = None) -> Chain:
    """A walk on a graph.

    Args:
        graph: undirected and connected, its nodes 0..n-1. Self-loops are left out. An edge's `weight`, 1 unless given,
            counts for the kernel `weighted` alone.
        walk: how it hops.
        target: the share of visits that each node is to have, up to a factor; "degree" (for `weighted`, the sum of the
            edges' weights) or "uniform" by the kernel unless given.

    Raises:
        ConfigError: a directed or disconnected graph, a target that is not n numbers above 0, or one that the kernel
            cannot have.
    """
    starts, neighbors, widths = _arcs(graph, weighted=walk.kernel == "weighted")
    strengths = np.add.reduceat(widths, starts[:-1]) if len(widths) else np.ones(1)
    wanted = _weights(KERNELS[walk.kernel].natural if target is None else target, strengths)
    shares = wanted / strengths
    if not KERNELS[walk.kernel].any_target and np.ptp(shares) > TOLERANCE * shares.max():
        raise ConfigError(
            f"kernel {walk.kernel} visits nodes in proportion to their degrees and cannot have another target; use "
            "kernel metropolis, srrw or hdt"
        )
    log_shares = np.log(shares)
    log_rates = log_shares[neighbors] - np.repeat(log_shares, np.diff(starts))
    return Chain(walk, wanted / wanted.sum(), starts, neighbors, widths, log_rates)


def _arcs(graph: nx.Graph, weighted: bool) -> tuple[Integers, Integers, Floats]:
    """`starts`, `neighbors` and `widths` of a `Chain`."""
    if graph.is_directed():
        raise ConfigError("a walk goes both ways along an edge and needs an undirected graph, found a directed one")
    if sorted(graph) != list(range(len(graph))) or not len(graph):
        raise ConfigError("a walk needs a graph with the nodes 0..n-1")
    if not nx.is_connected(graph):
        parts = nx.number_connected_components(graph)
        raise ConfigError(f"a walk needs a connected graph, found one of {parts} components; add edges between them")
    arcs = sorted((i, j) for a, b in graph.edges if a != b for i, j in ((a, b), (b, a)))
    widths = np.array([graph.edges[arc].get("weight", 1.0) if weighted else 1.0 for arc in arcs], dtype=np.float64)
    sound = np.isfinite(widths) & (widths > 0)
    if not sound.all():
        i, j = arcs[int((~sound).argmax())]
        raise ConfigError(f"edge {i}-{j} has weight {graph.edges[i, j]['weight']}; a walk needs finite ones above 0")
    ends = np.array(arcs, dtype=np.int64).reshape(-1, 2)
    starts = np.concatenate([[0], np.bincount(ends[:, 0], minlength=len(graph)).cumsum()])
    return starts, np.ascontiguousarray(ends[:, 1]), widths


def _weights(target: Target, strengths: Floats) -> Floats:
    """`(n,)`: the target as it was given, not yet normalized."""
    if isinstance(target, str):
        if target not in ("uniform", "degree"):
            raise ConfigError(f"unknown target {target!r}{nearest(target, ('uniform', 'degree'))}")
        return strengths if target == "degree" else np.ones(len(strengths))
    weights = np.asarray(target, dtype=np.float64)
    if weights.shape != strengths.shape:
        raise ConfigError(f"the target has {weights.size} numbers for {len(strengths)} nodes; required: one a node")
    sound = np.isfinite(weights) & (weights > 0)
    if not sound.all():
        node = int((~sound).argmax())
        raise ConfigError(
            f"the target of node {node} is {weights[node]:g}; required: a finite number above 0, since a walk must "
            "pass every node"
        )
    return weights
