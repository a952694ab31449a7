"""Complete graph: every node talks to every other.

Weights 1/n, so one gossip step is the exact mean: all eigenvalues but the first are 0. It is all-reduce in gossip's
clothes, with n (n - 1) / 2 edges.
"""

import networkx as nx

MOST_EDGES = 5_000_000


def build(nodes: int) -> nx.Graph:
    edges = nodes * (nodes - 1) // 2
    if edges > MOST_EDGES:
        raise ValueError(f"nodes={nodes} have {edges:,} edges, above {MOST_EDGES:,}; take fewer nodes or another graph")
    return nx.complete_graph(nodes)
