"""Random regular graph: every node has the same degree, the edges are drawn at random.

An expander with high probability: the second eigenvalue of the adjacency is close to 2 sqrt(degree - 1) (Friedman
2008), so the gap does not shrink with n. Drawn again until connected.
"""

from random import Random

import networkx as nx

TRIES = 100


def build(nodes: int, *, degree: int = 4, seed: int = 0) -> nx.Graph:
    """The graph of `seed`, the same on every machine."""
    if not 0 <= degree < nodes:
        raise ValueError(f"degree={degree} for nodes={nodes}; every node has 0 to nodes-1 neighbors: lower degree")
    if degree * nodes % 2:
        raise ValueError(f"degree={degree} and nodes={nodes} are both odd, which no graph allows; change one of them")
    random = Random(seed)
    for _ in range(TRIES):
        graph = nx.random_regular_graph(degree, nodes, seed=random)
        if nx.is_connected(graph):
            return graph
    raise ValueError(f"none of {TRIES} graphs with degree={degree} on nodes={nodes} was connected; raise degree")
