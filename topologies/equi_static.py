"""EquiStatic graph: each node mixes with those at some random offsets, the same for all (Song et al. 2022).

W is the mean over M offsets u of A(u), in which node i gives weight (n - 1) / n to i + u and 1 / n to itself;
undirected, of A(u) and its transpose. With M about log n the gap does not shrink with n (EquiTopo, arXiv:2210.07881).
Drawn again until connected.
"""

from math import ceil, gcd, log2
from random import Random

import networkx as nx

WEIGHTS = "given"


def build(nodes: int, *, offsets: int | None = None, directed: bool = False, seed: int = 0) -> nx.Graph:
    """`offsets` is M, ceil(log2 n) unless given; an offset that is drawn twice counts twice."""
    drawn = _connecting(nodes, ceil(log2(nodes)) if offsets is None else offsets, Random(seed))
    graph = nx.empty_graph(nodes, create_using=nx.DiGraph if directed else nx.Graph)
    for offset in drawn:
        for i in range(nodes):
            sender, weight = (i + offset) % nodes, (nodes - 1) / nodes / len(drawn)
            # An undirected edge is met from both ends where the offset is n / 2, from one where it is not.
            before = graph.edges[sender, i]["weight"] if graph.has_edge(sender, i) else 0.0
            graph.add_edge(sender, i, weight=before + (weight if directed else weight / 2))
    return graph


def _connecting(nodes: int, count: int, random: Random) -> list[int]:
    if nodes == 1:
        return []
    if count < 1:
        raise ValueError(f"offsets={count}; 1 or more are required")
    drawn = [nodes]
    while gcd(nodes, *drawn) > 1:
        drawn = [random.randrange(1, nodes) for _ in range(count)]
    return drawn
