"""Star: node 0 is the hub, all others talk to it alone.

Diameter 2, and yet a slow mixer: Metropolis weights are 1/n, so the leaves keep 1 - 1/n and the second eigenvalue is
1 - 1/n. The graph closest to a parameter server.
"""

import networkx as nx


def build(nodes: int) -> nx.Graph:
    return nx.star_graph(nodes - 1)
