"""Where the nodes of a small graph stand in its picture, and how its edges run."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import pi, tau

import networkx as nx
import numpy as np

from decentral.topology.stochastic import Floats

CROWDED = 0.065
"""How close a node may come to another, or to an edge that is not its own, before the picture misleads."""

SPARSE_DEGREE = 4.5
"""Up to this mean degree a graph may look like more than a circle of chords."""


@dataclass(frozen=True, eq=False)
class Layout:
    """A drawing in the square from -1 to 1.

    Args:
        points: `(n, 2)` positions x, y; y points down.
        circular: whether the nodes stand on a circle, in order.
    """

    points: Floats
    circular: bool

    def curve(self, i: int, j: int, steps: int) -> Floats:
        """`(steps, 2)` points along the edge i-j.

        On a circle an edge is bent towards the center, half as much as a hyperbolic line, so that it stays clear of
        the nodes between its ends; only next neighbors are joined by a straight one.
        """
        start, end = self.points[i], self.points[j]
        middle = (start + end) / 2
        if self.circular and (j - i) % len(self.points) not in (1, len(self.points) - 1):
            sine = np.linalg.norm(end - start) / 2
            middle = middle / (1 + sine)
        t = np.linspace(0, 1, steps)[:, None]
        return np.asarray((1 - t) ** 2 * start + 2 * t * (1 - t) * middle + t**2 * end)


def layout(graph: nx.Graph) -> Layout:
    """The first that reads well of: a tree around its center; forces, where they untangle a sparse graph; a circle."""
    circle = _circle(len(graph))
    if len(graph) < 4:
        return Layout(circle, circular=True)
    if nx.is_tree(graph):
        rings = _rings(graph)
        return Layout(rings, circular=False) if _clear(graph, rings) else Layout(circle, circular=True)
    if 2 * graph.number_of_edges() <= SPARSE_DEGREE * len(graph):
        forces = _forces(graph)
        if _clear(graph, forces) and 2 * crossings(graph, forces) < crossings(graph, circle):
            return Layout(forces, circular=False)
    return Layout(circle, circular=True)


def crossings(graph: nx.Graph, points: Floats) -> int:
    """How many pairs of straight edges cross."""
    i, j = _edges(graph).T
    start, end = points[i], points[j]
    apart = (i[:, None] != i) & (i[:, None] != j) & (j[:, None] != i) & (j[:, None] != j)
    divided = _sides(start, end, start) * _sides(start, end, end) < 0  # line a parts the ends of edge b
    return int((apart & divided & divided.T).sum()) // 2


def _circle(n: int) -> Floats:
    """Clockwise from the top."""
    if n == 1:
        return np.zeros((1, 2))
    angle = tau * np.arange(n) / n
    return np.stack([np.sin(angle), -np.cos(angle)], axis=1)


def _rings(tree: nx.Graph) -> Floats:
    """The center in the middle, each level on a ring of its own, each subtree in a sector as wide as its leaves."""
    root = min(nx.center(tree))
    children = nx.bfs_tree(tree, root)
    depth = nx.single_source_shortest_path_length(tree, root)
    points = np.zeros((len(tree), 2))
    leaves = _leaves(children)
    sector = {root: (0.0, tau)}
    for node in children:
        begin, width = sector[node]
        angle = begin + width / 2 - pi / leaves[root]
        points[node] = depth[node] / max(depth.values()) * np.array([np.sin(angle), -np.cos(angle)])
        for child in children[node]:
            share = width * leaves[child] / leaves[node]
            sector[child] = (begin, share)
            begin += share
    return _filling(points)


def _leaves(children: nx.DiGraph) -> Mapping[int, int]:
    leaves: dict[int, int] = {}
    for node in reversed(list(children)):
        leaves[node] = sum(leaves[child] for child in children[node]) or 1
    return leaves


def _forces(graph: nx.Graph) -> Floats:
    """Kamada and Kawai's springs, started from the circle."""
    start = dict(enumerate(_circle(len(graph))))
    found = nx.kamada_kawai_layout(graph, pos=start, weight=None)
    return _filling(np.array([found[node] for node in range(len(graph))]))


def _filling(points: Floats) -> Floats:
    """Stretched to the square from -1 to 1; a line of points stays one."""
    low, high = points.min(axis=0), points.max(axis=0)
    span = np.where(high - low < 1e-6, 2.0, high - low)
    return np.asarray((2 * points - low - high) / span)


def _clear(graph: nx.Graph, points: Floats) -> bool:
    """Whether no node comes close to another or to a foreign edge."""
    i, j = _edges(graph).T
    start, along = points[i], points[j] - points[i]
    t = ((points[:, None] - start) * along).sum(axis=2) / np.maximum((along**2).sum(axis=1), 1e-12)
    foot = start + np.clip(t, 0, 1)[:, :, None] * along
    distance = np.linalg.norm(points[:, None] - foot, axis=2)
    nodes = np.arange(len(points))[:, None]
    return bool((distance[(nodes != i) & (nodes != j)] > CROWDED).all())


def _edges(graph: nx.Graph) -> np.ndarray[tuple[int, ...], np.dtype[np.int64]]:
    return np.array([edge for edge in graph.edges if edge[0] != edge[1]], dtype=np.int64)


def _sides(start: Floats, end: Floats, points: Floats) -> Floats:
    """`(E, n)`: on which side of line e point p lies."""
    (ax, ay), (px, py) = (end - start).T[:, :, None], (points[None] - start[:, None]).transpose(2, 0, 1)
    return np.asarray(ax * py - ay * px)
