"""Grid: rows and columns without wrapping around; two to four neighbors each.

Metropolis weights 1/5 but at the border, so the gap is about pi^2 / (5 m^2) where the longer side is m (0.00196 on
32 x 32). Node r * columns + c stands in row r, column c.
"""

from math import isqrt

import networkx as nx


def build(nodes: int, *, rows: int | None = None) -> nx.Graph:
    """`rows` by `nodes / rows`; as square as possible unless `rows` is given."""
    if rows is None:
        rows = next(r for r in range(isqrt(nodes), 0, -1) if nodes % r == 0)
        if rows == 1 and nodes > 3:
            raise ValueError(
                f"nodes={nodes} is prime, so its only grid is a path; choose rows x columns nodes, or path"
            )
    if rows < 1 or nodes % rows:
        raise ValueError(f"rows={rows} does not divide nodes={nodes}; choose a divisor, or leave rows out")
    columns = nodes // rows
    grid = nx.convert_node_labels_to_integers(nx.grid_2d_graph(rows, columns), ordering="sorted")
    nx.set_node_attributes(grid, {node: (node % columns, node // columns) for node in grid}, "pos")
    return grid
