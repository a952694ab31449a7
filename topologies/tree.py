"""Balanced tree: node 0 is the root, and the children of node i are branching * i + 1, branching * i + 2, ...

The fewest edges that connect n nodes, n - 1, and diameter about 2 log n; but the gap shrinks as 1/n, since all traffic
between the root's subtrees passes through the root. Every level is full but the last.
"""

import networkx as nx


def build(nodes: int, *, branching: int = 2) -> nx.Graph:
    """`branching` children per node; 1 makes a path."""
    if branching < 1:
        raise ValueError(f"branching={branching}; a node has 1 child or more")
    tree = nx.empty_graph(nodes)
    tree.add_edges_from(((i - 1) // branching, i) for i in range(1, nodes))
    return tree
