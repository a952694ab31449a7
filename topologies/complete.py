"""Complete graph: every node talks to every other.

Weights 1/n, so one gossip step is the exact mean: all eigenvalues but the first are 0. It is all-reduce in gossip's
clothes, with n (n - 1) / 2 edges.
"""

import networkx as nx


def build(nodes: int) -> nx.Graph:
    return nx.complete_graph(nodes)
