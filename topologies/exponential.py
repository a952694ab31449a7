"""Static exponential graph: node i talks to i + 2^k and i - 2^k for every 2^k below n.

Degree about 2 log2 n, gap about 1 / log n (Ying et al. 2021, arXiv:2110.13363, whose graph has the edges +2^k only and
is directed; this is its undirected form).
"""

import networkx as nx


def build(nodes: int) -> nx.Graph:
    return nx.circulant_graph(nodes, [2**k for k in range((nodes - 1).bit_length())])
