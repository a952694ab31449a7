"""Path: the nodes in a line, each talking to the one before and the one after it.

The largest diameter that n nodes can have, n - 1. Metropolis weights are 1/3, with the second eigenvalue
(1 + 2 cos(pi / n)) / 3: a ring of 2 n nodes mixes as slowly. It is the chain of Vogels et al. 2021 (RelaySGD).
"""

import networkx as nx


def build(nodes: int) -> nx.Graph:
    return nx.path_graph(nodes)
