"""k-peer exponential graph: in turn t node i receives from i + j (k + 1)^t for j = 1..k, over and over.

Directed, weights 1 / (k + 1), floor(log n / log(k + 1)) turns. Where n is a power of k + 1 the product of a period is
the exact mean; elsewhere it is off by max_i |sin(pi i m / n) / (m sin(pi i / n))| in spectral norm, m = (k + 1)^turns
(Niwa et al. 2025): by 0.602 for n = 17 and k = 2.
"""

from itertools import count, takewhile

import networkx as nx

WEIGHTS = "uniform"


def build(nodes: int, *, k: int = 1) -> list[nx.DiGraph]:
    """`k` neighbors to receive from, and as many to send to, in each turn."""
    if k < 1:
        raise ValueError(f"k={k}; a node has 1 neighbor or more in each turn")
    if nodes == 1:
        return [nx.empty_graph(1)]
    if nodes <= k:
        raise ValueError(f"k={k} for nodes={nodes}; a node has at most nodes-1 neighbors: lower k")
    steps = takewhile(lambda step: step * (k + 1) <= nodes, ((k + 1) ** turn for turn in count()))
    return [nx.DiGraph(((i + j * step) % nodes, i) for i in range(nodes) for j in range(1, k + 1)) for step in steps]
