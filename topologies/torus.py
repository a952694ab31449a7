"""Torus: a grid that wraps around in both directions; four neighbors each.

Weights 1/5 each where both sides are longer than 2, with eigenvalues (1 + 2 cos(2 pi a / rows) + 2 cos(2 pi b /
columns)) / 5: the gap shrinks as 1/n, and even sides give the last eigenvalue -3/5. Node r * columns + c stands in row
r, column c. A side of length 2 has one edge, not two.
"""

from math import isqrt

import networkx as nx


def build(nodes: int, *, rows: int | None = None) -> nx.Graph:
    """`rows` by `nodes / rows`; as square as possible unless `rows` is given."""
    if rows is None:
        rows = next(r for r in range(isqrt(nodes), 0, -1) if nodes % r == 0)
        if rows == 1 and nodes > 3:
            raise ValueError(
                f"nodes={nodes} is prime, so its only torus is a ring; choose rows x columns nodes, or ring"
            )
    if rows < 1 or nodes % rows:
        raise ValueError(f"rows={rows} does not divide nodes={nodes}; choose a divisor, or leave rows out")
    grid = nx.grid_2d_graph(rows, nodes // rows, periodic=True)
    return nx.convert_node_labels_to_integers(grid, ordering="sorted")
