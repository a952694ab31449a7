"""Erdos-Renyi graph: each pair of nodes is an edge with probability p, independently.

Connected with high probability when p exceeds ln n / n (Erdos and Renyi 1960); the default is twice that. Drawn again
until connected.
"""

from math import log
from random import Random

import networkx as nx

TRIES = 100


def build(nodes: int, *, p: float | None = None, seed: int = 0) -> nx.Graph:
    """The graph of `seed`, the same on every machine; `p` is 2 ln n / n, at most 1, unless given."""
    if p is None:
        p = min(1.0, 2 * log(nodes) / nodes)
    if not 0 <= p <= 1:
        raise ValueError(f"p={p}; a probability lies in 0..1")
    random = Random(seed)
    for _ in range(TRIES):
        graph = nx.fast_gnp_random_graph(nodes, p, seed=random)
        if nx.is_connected(graph):
            return graph
    raise ValueError(f"none of {TRIES} graphs with p={p:.4g} on nodes={nodes} was connected; raise p")
