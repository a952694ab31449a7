"""Groups with a complete graph inside and a graph between them, which take turns: inside, then between.

A turn inside is the exact mean of each group. A turn between links members of the same place in neighboring groups, so
that groups of equal size mix as the outer graph's nodes do; with fewer `links` less is sent between groups, and group
means mix more slowly by links / size. Nodes 0, 1, ... are the first group, and so on.
"""

from math import isqrt
from typing import Literal

import networkx as nx

OUTER = {"ring": nx.cycle_graph, "complete": nx.complete_graph, "path": nx.path_graph}


def build(
    nodes: int,
    *,
    groups: int | list[int] | None = None,
    outer: Literal["ring", "complete", "path", "star"] = "ring",
    links: int | None = None,
    inner: int = 1,
) -> list[nx.Graph]:
    """A cycle of `inner` turns inside and one between.

    `groups` is how many, of sizes as equal as may be, about sqrt(n) unless given; or the size of each. `links` members
    of a group, the first ones, talk to those of the next, as many as both groups have unless given.
    """
    sizes = _sizes(nodes, isqrt(nodes) if groups is None else groups)
    if links is not None and links < 1:
        raise ValueError(f"links={links}; 1 or more are required")
    if inner < 1:
        raise ValueError(f"inner={inner}; 1 turn or more is required")
    firsts = [sum(sizes[:group]) for group in range(len(sizes))]
    inside, between = nx.empty_graph(nodes), nx.empty_graph(nodes)
    for first, size in zip(firsts, sizes, strict=True):
        inside.add_edges_from(nx.complete_graph(range(first, first + size)).edges)
    for a, b in _outer(outer, len(sizes)).edges:
        count = min(sizes[a], sizes[b], *([] if links is None else [links]))
        between.add_edges_from((firsts[a] + place, firsts[b] + place) for place in range(count))
    return [graph for graph in (*[inside] * inner, between) if graph.size()] or [inside]


def _sizes(nodes: int, groups: int | list[int]) -> list[int]:
    if isinstance(groups, list):
        if min(groups, default=0) < 1 or sum(groups) != nodes:
            raise ValueError(f"groups={groups} for nodes={nodes}; sizes of 1 or more that sum to nodes are required")
        return groups
    if not 1 <= groups <= nodes:
        raise ValueError(f"groups={groups} for nodes={nodes}; 1 to nodes are required")
    return [nodes // groups + (group < nodes % groups) for group in range(groups)]


def _outer(name: str, groups: int) -> nx.Graph:
    if groups == 1:
        return nx.empty_graph(1)
    return nx.star_graph(groups - 1) if name == "star" else OUTER[name](groups)
