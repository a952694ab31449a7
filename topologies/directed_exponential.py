"""Directed exponential graph: node i sends to i + 2^k for every 2^k below n.

Weights 1 / (1 + ceil(log2 n)), doubly stochastic; gap about 1 / log n (Ying et al. 2021, arXiv:2110.13363). Half the
messages of `exponential`, its undirected form.
"""

import networkx as nx

WEIGHTS = "uniform"


def build(nodes: int) -> nx.DiGraph:
    graph = nx.empty_graph(nodes, create_using=nx.DiGraph)
    graph.add_edges_from((i, (i + 2**k) % nodes) for i in range(nodes) for k in range((nodes - 1).bit_length()))
    return graph
