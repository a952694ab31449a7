"""Connected caveman graph: cliques on a circle, each with one edge turned towards the clique before it.

The model of tight groups with few ties between them (Watts 1999, Networks, dynamics and the small-world phenomenon):
much averaging inside, little between.
"""

from itertools import combinations, pairwise
from math import isqrt

import networkx as nx


def build(nodes: int, *, caves: int | None = None) -> nx.Graph:
    """`caves` cliques, of equal size or one apart; sqrt(nodes) of them, rounded down, unless given."""
    caves = isqrt(nodes) if caves is None else caves
    if not 1 <= caves <= nodes:
        raise ValueError(f"caves={caves} for nodes={nodes}; required: 1 to nodes")
    graph = nx.empty_graph(nodes)
    for first, end in pairwise(cave * nodes // caves for cave in range(caves + 1)):
        graph.add_edges_from(combinations(range(first, end), 2))
        if caves > 1:
            graph.add_edge(first, (first - 1) % nodes)
        if caves > 1 and end - first > 2:
            graph.remove_edge(first, first + 1)
    return graph
