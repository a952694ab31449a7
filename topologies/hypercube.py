"""Hypercube: the nodes are the corners of a cube in log2 n dimensions; neighbors differ in one bit.

Eigenvalues 1 - 2 k / (d + 1) for k = 0..d with d = log2 n, so the gap is 2 / (d + 1), at both ends of the spectrum.
"""

import networkx as nx


def build(nodes: int) -> nx.Graph:
    dimension = nodes.bit_length() - 1
    if nodes != 2**dimension:
        raise ValueError(f"nodes={nodes}; a hypercube has a power of two: {2**dimension} or {2 ** (dimension + 1)}")
    cube = nx.empty_graph(nodes)
    cube.add_edges_from((i, i ^ (1 << k)) for i in range(nodes) for k in range(dimension))
    return cube
