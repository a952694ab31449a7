"""Ring: every node talks to its two neighbors on a circle.

Weights 1/3 each. Eigenvalues (1 + 2 cos(2 pi k / n)) / 3, so the gap shrinks as 1/n^2; every even ring has the last
eigenvalue -1/3. Two nodes share one edge.
"""

import networkx as nx


def build(nodes: int) -> nx.Graph:
    return nx.cycle_graph(nodes) if nodes > 1 else nx.empty_graph(nodes)
