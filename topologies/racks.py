"""Two-level data center: every rack is complete inside, and some nodes of each are linked to other racks.

The rack map of a cluster whose switches are fast and whose uplinks are not: all but a few edges stay inside a rack.
Racks are numbered in the order of their nodes: with racks: [4, 4, 2] the first rack holds 0..3, the last 8..9.
"""

from itertools import accumulate, combinations, pairwise
from math import isqrt
from typing import Literal

import networkx as nx

BETWEEN = {"ring": nx.cycle_graph, "path": nx.path_graph, "complete": nx.complete_graph}


def build(
    nodes: int,
    *,
    racks: int | list[int] | None = None,
    between: Literal["ring", "path", "star", "complete"] = "ring",
    uplinks: int = 1,
) -> nx.Graph:
    """A graph of cliques.

    Args:
        nodes: in all racks together.
        racks: how many, their sizes then equal or one apart; or the size of each. sqrt(nodes), rounded down.
        between: the graph of the racks; the first rack is the star's hub.
        uplinks: so many nodes of a rack, the first ones, are each linked to those of their place in other racks.
    """
    sizes = _sizes(nodes, racks)
    if not 1 <= uplinks <= min(sizes):
        raise ValueError(f"uplinks={uplinks} for racks of {min(sizes)} nodes and more; required: 1 to {min(sizes)}")
    graph, starts = nx.empty_graph(nodes), [0, *accumulate(sizes)]
    for first, end in pairwise(starts):
        graph.add_edges_from(combinations(range(first, end), 2))
    for a, b in _linked(len(sizes), between):
        graph.add_edges_from((starts[a] + place, starts[b] + place) for place in range(uplinks))
    return graph


def _sizes(nodes: int, racks: int | list[int] | None) -> list[int]:
    if isinstance(racks, list):
        if min(racks, default=0) < 1 or sum(racks) != nodes:
            raise ValueError(
                f"racks={racks} hold {sum(racks)} nodes for nodes={nodes}; each holds 1 or more, all nodes="
            )
        return racks
    number = isqrt(nodes) if racks is None else racks
    if not 1 <= number <= nodes:
        raise ValueError(f"racks={number} for nodes={nodes}; required: 1 to nodes")
    return [end - first for first, end in pairwise(rack * nodes // number for rack in range(number + 1))]


def _linked(racks: int, between: str) -> list[tuple[int, int]]:
    star = [(0, rack) for rack in range(1, racks)]
    edges = star if between == "star" else BETWEEN[between](racks).edges
    return [(a, b) for a, b in edges if a != b]
