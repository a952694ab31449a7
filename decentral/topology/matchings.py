"""A graph taken apart into matchings, so that every node talks to at most one neighbor at a time.

The edges of one color of an edge coloring are a matching. With Delta the largest degree, a bipartite graph takes Delta
colors (Koenig 1916: swap two colors along a path), any other at most Delta + 1 (Vizing 1964), by the constructive proof
of Misra and Gries 1992 (Information Processing Letters 41).
"""

from collections import Counter
from collections.abc import Iterable
from itertools import pairwise

import networkx as nx

Edge = tuple[int, int]


def matchings(graph: nx.Graph) -> list[tuple[Edge, ...]]:
    """The edges of a graph in at most Delta + 1 matchings, Delta if it is bipartite, the largest first; no self-loops.

    The same graph gives the same matchings in every process.
    """
    edges = sorted((min(edge), max(edge)) for edge in graph.edges if edge[0] != edge[1])
    degree = max(Counter(node for edge in edges for node in edge).values(), default=0)
    bipartite = nx.is_bipartite(nx.Graph(edges))
    coloring = _Coloring(degree if bipartite else degree + 1)
    for u, v in edges:
        if not coloring.add_at_once(u, v):
            (coloring.add_by_path if bipartite else coloring.add_by_fan)(u, v)
    by_color: dict[int, list[Edge]] = {}
    for edge, color in sorted(coloring.edges()):
        by_color.setdefault(color, []).append(edge)
    return sorted((tuple(matching) for matching in by_color.values()), key=lambda matching: (-len(matching), matching))


class _Coloring:
    """A partial edge coloring: for each node, its neighbor along each color."""

    def __init__(self, colors: int) -> None:
        self._colors = range(colors)
        self._along: dict[int, dict[int, int]] = {}

    def edges(self) -> Iterable[tuple[Edge, int]]:
        return (((u, v), color) for u, along in self._along.items() for color, v in along.items() if u < v)

    def add_at_once(self, u: int, v: int) -> bool:
        """Color the edge u-v with the first color that is free at both ends, if there is one."""
        color = next((color for color in self._colors if color not in self._at(u) and color not in self._at(v)), None)
        if color is not None:
            self._set(u, v, color)
        return color is not None

    def add_by_path(self, u: int, v: int) -> None:
        """Color the edge u-v of a bipartite graph: the path from v cannot end at u, so u's free color stays free."""
        c, d = self._free(u), self._free(v)
        self._invert(v, d, c)
        self._set(u, v, c)

    def add_by_fan(self, u: int, v: int) -> None:
        """Color the edge u-v, recoloring others where that must be."""
        fan = self._maximal_fan(u, v)
        c, d = self._free(u), self._free(fan[-1])
        self._invert(u, c, d)
        fan = self._prefix_with_free(u, fan, d)
        for here, there in pairwise(fan):  # each edge of the fan takes the color of the next
            color = self._color(u, there)
            self._unset(u, there, color)
            self._set(u, here, color)
        self._set(u, fan[-1], d)

    def _maximal_fan(self, u: int, v: int) -> list[int]:
        """Neighbors of u, the color of each one's edge free at the one before."""
        fan, rest = [v], dict(self._at(u))
        while free := sorted(rest.keys() - self._at(fan[-1]).keys()):
            fan.append(rest.pop(free[0]))
        return fan

    def _prefix_with_free(self, u: int, fan: list[int], d: int) -> list[int]:
        """The fan up to its first node where d is free; after the inversion the rest may be a fan no more."""
        for length, node in enumerate(fan, start=1):
            if d not in self._at(node):
                return fan[:length]
        raise AssertionError(f"no node of the fan of {u} has color {d} free")

    def _invert(self, u: int, c: int, d: int) -> None:
        """Swap c and d along the path that begins at u with d, so that d becomes free at u."""
        path, color = [u], d
        while (following := self._at(path[-1]).get(color)) is not None:
            path.append(following)
            color = c if color == d else d
        edges = list(pairwise(path))
        old = [self._color(a, b) for a, b in edges]
        for (a, b), color in zip(edges, old, strict=True):
            self._unset(a, b, color)
        for (a, b), color in zip(edges, old, strict=True):
            self._set(a, b, c if color == d else d)

    def _free(self, node: int) -> int:
        return next(color for color in self._colors if color not in self._at(node))

    def _color(self, u: int, v: int) -> int:
        return next(color for color, there in self._at(u).items() if there == v)

    def _at(self, node: int) -> dict[int, int]:
        return self._along.setdefault(node, {})

    def _set(self, u: int, v: int, color: int) -> None:
        self._at(u)[color] = v
        self._at(v)[color] = u

    def _unset(self, u: int, v: int, color: int) -> None:
        del self._at(u)[color], self._at(v)[color]
