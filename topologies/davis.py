"""Davis Southern women: a real social network of 18 women and the 14 events they attended (Davis et al. 1941).

Bipartite, 32 nodes, 89 edges; a standard testbed of decentralized learning (Koloskova et al. 2020, Lin et al. 2021).
Metropolis weights have the second eigenvalue 0.9179 and the last -0.4343. The women are nodes 0..17, the events 18..31.
"""

import networkx as nx


def build(nodes: int) -> nx.Graph:
    if nodes != 32:
        raise ValueError(f"nodes={nodes}; this network has exactly 32")
    return nx.convert_node_labels_to_integers(nx.davis_southern_women_graph())
