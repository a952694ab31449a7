"""One-peer exponential graph: in turn t node i sends to i + 2^t alone, t = 0, 1, ... below log2 n, over and over.

Directed, weights 1/2. Where n is a power of two the product of a period is the exact mean (Ying et al. 2021,
arXiv:2110.13363); elsewhere it is not, by 0.354 with 6 nodes (Frobenius norm), where that of `base_k` is.
"""

import networkx as nx

WEIGHTS = "uniform"


def build(nodes: int) -> list[nx.DiGraph]:
    return [_shift(nodes, 2**k) for k in range((nodes - 1).bit_length())] or [nx.empty_graph(nodes)]


def _shift(nodes: int, by: int) -> nx.DiGraph:
    return nx.DiGraph((i, (i + by) % nodes) for i in range(nodes))
