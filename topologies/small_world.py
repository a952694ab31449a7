"""Small world: a ring of near neighbors, some of whose edges are rewired to random nodes.

A few long edges shorten the diameter from n / neighbors to about log n (Watts and Strogatz 1998). Drawn again until
connected.
"""

import networkx as nx

TRIES = 100


def build(nodes: int, *, neighbors: int = 4, rewire: float = 0.1, seed: int = 0) -> nx.Graph:
    """Each node's `neighbors` nearest, each edge rewired with probability `rewire`; `seed` fixes the draw."""
    if neighbors % 2 or not 2 <= neighbors < nodes:
        raise ValueError(f"neighbors={neighbors} for nodes={nodes}; required: even, from 2 to nodes-1")
    if not 0 <= rewire <= 1:
        raise ValueError(f"rewire={rewire}; a probability lies in 0..1")
    try:
        return nx.connected_watts_strogatz_graph(nodes, neighbors, rewire, tries=TRIES, seed=seed)
    except nx.NetworkXError as error:
        raise ValueError(
            f"none of {TRIES} graphs with neighbors={neighbors}, rewire={rewire} on nodes={nodes} was connected; "
            "raise neighbors"
        ) from error
