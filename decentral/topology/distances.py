"""How far apart the nodes of a graph are."""

from functools import reduce
from operator import or_

import networkx as nx

from decentral.topology.spectrum import EXACT_NODES


def diameter(graph: nx.Graph) -> int:
    """The longest shortest path, in hops: exact up to `EXACT_NODES` nodes, above that a lower bound (double sweep)."""
    if len(graph) > EXACT_NODES:
        return int(nx.approximation.diameter(graph, seed=0))
    reached, everyone, hops = [1 << node for node in range(len(graph))], (1 << len(graph)) - 1, 0
    while any(known != everyone for known in reached):
        reached = [reduce(or_, (reached[j] for j in graph[node]), reached[node]) for node in range(len(graph))]
        hops += 1
    return hops
