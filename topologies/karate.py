"""Zachary's karate club: a real social network of 34 members, shortly before the club split in two (Zachary 1977).

34 nodes, 78 edges, degree 1 to 17. Node 0 is the instructor, node 33 the president; how often two members met is left
out. Metropolis weights have the second eigenvalue 0.9688 and the last -0.0799.
"""

import networkx as nx


def build(nodes: int) -> nx.Graph:
    if nodes != 34:
        raise ValueError(f"nodes={nodes}; this network has exactly 34")
    return nx.Graph(nx.karate_club_graph().edges)
