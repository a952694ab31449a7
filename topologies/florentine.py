"""Florentine families: marriages between 15 families of Renaissance Florence (Padgett and Ansell 1993).

15 nodes, 20 edges, degree 1 to 6; the hub is node 1, the Medici. A testbed of decentralized learning (Lin et al.
2021). Metropolis weights have the second eigenvalue 0.9426 and the last -0.1812.
"""

import networkx as nx


def build(nodes: int) -> nx.Graph:
    if nodes != 15:
        raise ValueError(f"nodes={nodes}; this network has exactly 15")
    return nx.convert_node_labels_to_integers(nx.florentine_families_graph())
