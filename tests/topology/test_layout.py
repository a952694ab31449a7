from pathlib import Path

import networkx as nx
import numpy as np
import pytest

from decentral.loading import example_with
from decentral.topology import gallery
from decentral.topology.drawing import FINE
from decentral.topology.layout import layout


def load(name, nodes, **options):
    return gallery.load(example_with(topology={"name": name, **options}).topology, nodes, Path())


def clearance(graph, drawn):
    """The least distance of an edge from a node that is not its own."""
    return min(
        np.linalg.norm(drawn.curve(i, j, 101)[:, None] - np.delete(drawn.points, (i, j), axis=0), axis=2).min()
        for i, j in graph.edges
    )


@pytest.mark.parametrize("name", gallery.names())
@pytest.mark.parametrize("options", [{}, FINE])
def test_every_layout_fills_the_square_and_keeps_nodes_apart(name, options):
    nodes = {"davis": 32, "florentine": 15, "karate": 34, "les_miserables": 77}.get(name, 16)
    points = layout(load(name, nodes).graph, **options).points
    assert points.shape == (nodes, 2)
    assert np.abs(points).max() == pytest.approx(1, abs=0.05)
    apart = np.linalg.norm(points[:, None] - points, axis=2) + 9 * np.eye(nodes)
    assert apart.min() > (0.065 if not options else 0.012)


@pytest.mark.parametrize(
    ("name", "nodes", "groups"),
    [
        ("two_cliques", 16, [range(8), range(8, 16)]),
        ("caveman", 16, [range(k, k + 4) for k in (0, 4, 8, 12)]),
        ("racks", 20, [range(k, k + 5) for k in (0, 5, 10, 15)]),
    ],
)
def test_dense_groups_stand_on_circles_of_their_own(name, nodes, groups):
    points = layout(load(name, nodes).graph).points
    centers = [points[list(group)].mean(axis=0) for group in groups]
    for center, group in zip(centers, groups, strict=True):
        radii = np.linalg.norm(points[list(group)] - center, axis=1)
        np.testing.assert_allclose(radii, radii[0])
        others = [np.linalg.norm(center - other) for other in centers if other is not center]
        assert 2 * radii[0] < min(others)


def test_the_bridge_of_two_cliques_is_short():
    points = layout(load("two_cliques", 16).graph).points
    across = np.linalg.norm(points[:8, None] - points[8:], axis=2)
    assert np.linalg.norm(points[7] - points[8]) == across.min()


@pytest.mark.parametrize("name", ["ring", "exponential", "hypercube", "complete", "fat_tree"])
def test_without_groups_there_is_one_circle(name):
    assert layout(load(name, 16).graph).circular


def test_a_path_does_not_close():
    points = layout(load("path", 12).graph).points
    ends, step = np.linalg.norm(points[0] - points[-1]), np.linalg.norm(points[0] - points[1])
    assert ends > 1.3 * step
    shuffled = layout(nx.Graph([(2, 0), (0, 3), (3, 1), (1, 4)])).points
    assert all(np.linalg.norm(shuffled[i] - shuffled[j]) < 1.3 for i, j in [(2, 0), (0, 3), (3, 1), (1, 4)])


def test_positions_are_drawn_to_scale():
    graph = nx.Graph([(0, 1), (1, 2), (2, 3), (3, 0), (1, 3)])
    nx.set_node_attributes(graph, {0: (10, 10), 1: (14, 10), 2: (14, 12), 3: (10, 12)}, "pos")
    np.testing.assert_allclose(layout(graph).points, [[-1, -0.5], [1, -0.5], [1, 0.5], [-1, 0.5]])


def test_an_edge_bends_out_of_a_nodes_way():
    graph = nx.Graph([(0, 1), (1, 2), (0, 2), (2, 3)])
    nx.set_node_attributes(graph, {0: (0, 0), 1: (1, 0), 2: (2, 0), 3: (2, 1)}, "pos")
    drawn = layout(graph)
    assert list(drawn.bends) == [(0, 2)]
    assert clearance(graph, drawn) > 0.065


def test_no_edge_of_a_terminals_picture_meets_a_foreign_node():
    for name, nodes in (("florentine", 15), ("grid", 20), ("torus", 16), ("double_binary_trees", 16)):
        graph = load(name, nodes).graph
        assert clearance(graph, layout(graph)) > 0.06
