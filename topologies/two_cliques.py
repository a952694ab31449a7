"""Two cliques (dumbbell, barbell): two complete halves that one edge joins, or a path of nodes.

The warning against the spectral gap: at n = 32 its second eigenvalue is 0.9934, worse than a ring's 0.9872, and yet
each node averages with half of all others in every step, which is what large learning rates feel (Vogels et al. 2022,
Beyond spectral gap, arXiv:2206.03093).
"""

import networkx as nx


def build(nodes: int, *, path: int = 0) -> nx.Graph:
    """`path` nodes between the cliques, numbered between theirs; an odd node out goes to the second clique."""
    if not 0 <= path <= max(0, nodes - 2):
        raise ValueError(f"path={path} for nodes={nodes}; each clique needs a node: 0 to nodes-2 may lie between")
    first = (nodes - path) // 2
    graph = nx.path_graph(nodes)
    graph.add_edges_from(nx.complete_graph(range(first)).edges)
    graph.add_edges_from(nx.complete_graph(range(first + path, nodes)).edges)
    return graph
