"""Les Miserables: the characters of Hugo's novel, an edge for any two who appear in one chapter (Knuth 1993).

77 nodes, 254 edges, degree 1 to 36; the hub is node 10, Jean Valjean, and how many chapters two share is left out.
Metropolis weights have the second eigenvalue 0.9927 and the last -0.0534.
"""

import networkx as nx


def build(nodes: int) -> nx.Graph:
    if nodes != 77:
        raise ValueError(f"nodes={nodes}; this network has exactly 77")
    numbered = nx.convert_node_labels_to_integers(nx.les_miserables_graph())
    return nx.Graph(numbered.edges)
