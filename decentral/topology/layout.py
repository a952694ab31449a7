"""Where the nodes of a small graph stand in its picture, and how its edges run."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from math import pi, sin, tau

import networkx as nx
import numpy as np

from decentral.topology.stochastic import Floats

CROWDED = 0.065
"""How close a node may come to another, or to an edge that is not its own, before the picture misleads."""

SPARSE_DEGREE = 4.5
"""Up to this mean degree a graph may look like more than a circle of chords."""

DENSE_GROUP = 0.65
"""The share of its possible edges from which on a group of nodes is drawn as a circle of its own."""

FEW_BETWEEN = 0.35
"""The share of edges between groups up to which the groups say what the graph is."""

BENDS = (0.18, -0.18, 0.3, -0.3, 0.45, -0.45)
"""How far an edge may be bent out of a foreign node's way, in its own length."""

Bends = Mapping[tuple[int, int], Floats]


@dataclass(frozen=True, eq=False)
class Layout:
    """A drawing in the square from -1 to 1.

    Args:
        points: `(n, 2)` positions x, y; y points down.
        circular: whether the nodes stand on one circle.
        bends: of each edge (i, j), i < j, that is not straight: how far `(2,)` its control point is from its middle.
    """

    points: Floats
    circular: bool
    bends: Bends

    def curve(self, i: int, j: int, steps: int) -> Floats:
        """`(steps, 2)` points along the edge i-j."""
        start, end = self.points[i], self.points[j]
        middle = (start + end) / 2 + self.bends.get((min(i, j), max(i, j)), 0.0)
        t = np.linspace(0, 1, steps)[:, None]
        return np.asarray((1 - t) ** 2 * start + 2 * t * (1 - t) * middle + t**2 * end)


def layout(
    graph: nx.Graph, apart: float = CROWDED, clear: float = CROWDED, sparse_degree: float = SPARSE_DEGREE
) -> Layout:
    """The first that reads well.

    That is of: where the nodes' own `pos` puts them; a tree around its center; dense groups with little between them,
    each on a circle; forces, where they untangle a sparse graph; a circle.

    Args:
        graph: undirected, the nodes 0..n-1.
        apart: how close two nodes may come to each other.
        clear: how close a node may come to an edge that is not its own.
        sparse_degree: up to this mean degree forces are tried.
    """
    circle = _on_circle(graph)
    if len(graph) < 4:
        return circle
    if max(degree for _, degree in graph.degree) <= 2:
        return Layout(_arc(graph), True, {}) if nx.is_tree(graph) else circle
    if len(placed := _placed(graph)) and _nearest(placed) > apart:
        return Layout(placed, False, _out_of_the_way(graph, placed, clear))
    if nx.is_tree(graph):
        rings = _rings(graph)
        return Layout(rings, False, {}) if _clear(graph, Layout(rings, False, {}), apart, clear) else circle
    if groups := _groups(graph):
        grouped = _on_circles(graph, groups)
        if _nearest(grouped.points) > apart:
            return grouped
    if 2 * graph.number_of_edges() <= sparse_degree * len(graph):
        points = _forces(graph)
        forces = Layout(points, False, _out_of_the_way(graph, points, clear))
        if _clear(graph, forces, apart, clear) and 2 * crossings(graph, points) < crossings(graph, circle.points):
            return forces
    return circle


def crossings(graph: nx.Graph, points: Floats) -> int:
    """How many pairs of straight edges cross."""
    i, j = _edges(graph).T
    start, end = points[i], points[j]
    apart = (i[:, None] != i) & (i[:, None] != j) & (j[:, None] != i) & (j[:, None] != j)
    divided = _sides(start, end, start) * _sides(start, end, end) < 0  # line a parts the ends of edge b
    return int((apart & divided & divided.T).sum()) // 2


def _on_circle(graph: nx.Graph) -> Layout:
    points = _circle(len(graph))
    return Layout(points, True, dict(_inwards(graph, range(len(graph)), points, np.zeros(2))))


def _arc(path: nx.Graph) -> Floats:
    """A circle that does not close, from one end of a path to the other."""
    first = min(node for node, degree in path.degree if degree == 1)
    points, angle = np.zeros((len(path), 2)), tau * np.linspace(0.06, 0.94, len(path))
    points[list(nx.dfs_preorder_nodes(path, first))] = np.stack([np.sin(angle), -np.cos(angle)], axis=1)
    return points


def _inwards(
    graph: nx.Graph, members: Sequence[int], points: Floats, center: Floats
) -> Iterator[tuple[tuple[int, int], Floats]]:
    """The bends of edges between members of a circle, in its order.

    They are bent towards the center, half as much as a hyperbolic line, so that they stay clear of the nodes between
    their ends; only next neighbors are joined by a straight one.
    """
    radius = max(float(np.linalg.norm(points[members[0]] - center)), 1e-12)
    for (a, i), (b, j) in combinations(enumerate(members), 2):
        if graph.has_edge(i, j) and b - a not in (1, len(members) - 1):
            middle = (points[i] + points[j]) / 2 - center
            sine = float(np.linalg.norm(points[j] - points[i])) / 2 / radius
            yield (min(i, j), max(i, j)), middle / (1 + sine) - middle


def _placed(graph: nx.Graph) -> Floats:
    """Where the nodes' own positions put them, to scale; empty unless all have one."""
    given = [pos for _, pos in graph.nodes(data="pos")]
    if None in given:
        return np.zeros((0, 2))
    points = np.array(given, dtype=np.float64)
    low, high = points.min(axis=0), points.max(axis=0)
    return np.asarray((2 * points - low - high) / max(float((high - low).max()), 1e-300))


def _out_of_the_way(graph: nx.Graph, points: Floats, clear: float) -> Bends:
    """Bends for straight edges that would come close to a foreign node: the first that is clear, or the best."""
    bends: dict[tuple[int, int], Floats] = {}
    for i, j in _edges(graph).tolist():
        others = np.delete(points, (i, j), axis=0)
        across = (points[j] - points[i])[::-1] * np.array([-1.0, 1.0])
        best = -np.inf
        for share in (0.0, *BENDS):
            bent = Layout(points, False, {(min(i, j), max(i, j)): share * across})
            distance = _distance(bent.curve(i, j, 48), others)
            if distance > best:
                best, bends[min(i, j), max(i, j)] = distance, share * across
            if distance > clear:
                break
    return {edge: bend for edge, bend in bends.items() if bend.any()}


def _distance(curve: Floats, points: Floats) -> float:
    return float(np.linalg.norm(curve[:, None] - points, axis=2).min(initial=np.inf))


def _groups(graph: nx.Graph) -> list[list[int]]:
    """Dense groups that few edges join, in the order of their first nodes; none where there is no such division."""
    if graph.number_of_edges() < len(graph):
        return []
    found = sorted(sorted(group) for group in nx.community.greedy_modularity_communities(graph))
    sizes = [(len(group), graph.subgraph(group).number_of_edges()) for group in found]
    dense = all(inside >= DENSE_GROUP * size * (size - 1) / 2 for size, inside in sizes)
    between = graph.number_of_edges() - sum(inside for _, inside in sizes)
    large = min(size for size, _ in sizes) >= 3 and len(found) > 1
    return found if dense and large and between <= FEW_BETWEEN * graph.number_of_edges() else []


def _on_circles(graph: nx.Graph, groups: Sequence[Sequence[int]]) -> Layout:
    """Each group on a circle, turned so that its links to others are short, and the circles on a circle."""
    reach = 0.62 * sin(pi / len(groups))
    centers = _circle(len(groups)) if len(groups) > 2 else np.array([[-1.0, 0.0], [1.0, 0.0]])
    centers, radius = centers / (1 + reach), reach / (1 + reach)
    of = {node: group for group, members in enumerate(groups) for node in members}
    points = np.zeros((len(graph), 2))
    bends: dict[tuple[int, int], Floats] = {}
    for group, members in enumerate(groups):
        away = [[centers[of[j]] for j in graph[i] if of[j] != group] for i in members]
        ring = centers[group] + radius * _circle(len(members))
        turns = [np.roll(ring, turn, axis=0) for turn in range(len(members))]
        points[list(members)] = min(turns, key=lambda turn: _length(turn, away))
        bends |= dict(_inwards(graph, members, points, centers[group]))
    return Layout(points, False, bends)


def _length(points: Floats, away: Sequence[Sequence[Floats]]) -> float:
    return sum(float(np.linalg.norm(point - end)) for point, ends in zip(points, away, strict=True) for end in ends)


def _nearest(points: Floats) -> float:
    """The distance of the two nodes that are closest to each other."""
    apart = np.linalg.norm(points[:, None] - points, axis=2)
    np.fill_diagonal(apart, np.inf)
    return float(apart.min())


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


def _clear(graph: nx.Graph, drawn: Layout, apart: float, clear: float) -> bool:
    """Whether no node comes close to another or to a foreign edge."""
    return _nearest(drawn.points) > apart and all(
        _distance(drawn.curve(i, j, 48), np.delete(drawn.points, (i, j), axis=0)) > clear
        for i, j in _edges(graph).tolist()
    )


def _edges(graph: nx.Graph) -> np.ndarray[tuple[int, ...], np.dtype[np.int64]]:
    return np.array([edge for edge in graph.edges if edge[0] != edge[1]], dtype=np.int64)


def _sides(start: Floats, end: Floats, points: Floats) -> Floats:
    """`(E, n)`: on which side of line e point p lies."""
    (ax, ay), (px, py) = (end - start).T[:, :, None], (points[None] - start[:, None]).transpose(2, 0, 1)
    return np.asarray(ax * py - ay * px)
