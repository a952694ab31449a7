from pathlib import Path

import networkx as nx
import numpy as np
import pytest

from decentral.loading import example_with
from decentral.topology import gallery
from decentral.topology.layout import crossings, layout
from decentral.topology.picture import draw
from decentral.topology.topology import Topology

ONE_SIZE = {"davis": 32, "florentine": 15, "karate": 34, "les_miserables": 77}

BUILT = [*ONE_SIZE.items()] + [
    (name, nodes)
    for name in gallery.names()
    for nodes in (1, 2, 8, 16, 32, 100)
    if name not in ONE_SIZE
    and not (name == "fat_tree" and nodes not in (2, 16))
    and not (name == "hypercube" and nodes == 100)
    and not (name in ("random_regular", "small_world") and nodes < 8)
]


def load(name, nodes, **options):
    return gallery.load(example_with(topology={"name": name, **options}).topology, nodes, Path())


@pytest.mark.parametrize("ascii", [False, True])
@pytest.mark.parametrize(("name", "nodes"), BUILT)
def test_pictures_fit_and_number_the_nodes(name, nodes, ascii):
    picture = draw(load(name, nodes), ascii=ascii)
    lines = picture.splitlines()
    assert len(lines) <= 36
    assert max(map(len, lines)) <= 72
    assert picture.isascii() or not ascii
    assert picture == draw(load(name, nodes), ascii=ascii)
    words = {word for line in lines for word in "".join(c if c.isdigit() else " " for c in line).split()}
    assert {"0", str(nodes - 1)} <= words


@pytest.mark.parametrize("name", ["ring", "tree", "star", "torus", "small_world"])
@pytest.mark.parametrize("nodes", [8, 16, 32])
def test_each_number_stands_once_in_a_drawing(name, nodes):
    picture = "".join(character if character.isdigit() else " " for character in draw(load(name, nodes)))
    assert sorted(map(int, picture.split())) == list(range(nodes))


def test_dense_graphs_are_drawn_as_their_adjacency_matrix():
    picture = draw(load("complete", 16)).splitlines()
    assert len(picture) == 17
    assert picture[1].startswith(" 1 ⠿⠇  ⠿⠇")
    assert picture[-1].strip() == "a mark in row i, column j: i and j are neighbors"


def test_a_large_ring_is_a_diagonal():
    *lines, caption = draw(load("ring", 1000), ascii=True).splitlines()
    assert caption.strip() == "a mark in row i, column j: some of 8 x 8 nodes are neighbors"
    marked = np.array([[c != " " for c in line[4:].ljust(63)] for line in lines])
    line, column = np.nonzero(marked)
    assert len(lines) == 32
    near = np.abs(column - 2 * line) <= 2
    assert near.sum() >= 63
    assert list(zip(line[~near], column[~near], strict=True)) == [(0, 62), (31, 0)]


def test_trees_are_drawn_without_crossings():
    for nodes in range(4, 40):
        graph = load("tree", nodes, branching=3).graph
        assert crossings(graph, layout(graph).points) == 0


def test_a_long_path_keeps_apart_on_a_circle():
    assert layout(nx.path_graph(32)).circular
    assert not layout(nx.star_graph(31)).circular


def test_crossings_of_complete_graphs_on_a_circle():
    angle = 2 * np.pi * np.arange(6) / 6 + 0.1 * np.arange(6) ** 2 / 36
    points = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    assert crossings(nx.complete_graph(4), points[:4]) == 1
    assert crossings(nx.complete_graph(6), points) == 15


def test_edges_on_a_circle_stay_clear_of_the_nodes_they_pass():
    drawn = layout(load("exponential", 32).graph)
    passed = drawn.points[1]
    assert np.linalg.norm(drawn.curve(0, 2, 101) - passed, axis=1).min() > 0.08


@pytest.mark.parametrize(("width", "height"), [(15, 36), (72, 7)])
def test_too_small_a_picture_is_refused(width, height):
    with pytest.raises(ValueError, match="needs 16 characters by 8 lines"):
        draw(Topology.static("pair", nx.path_graph(2), "metropolis"), width, height)


@pytest.mark.parametrize("nodes", [2, 33, 64, 65, 500])
def test_small_pictures_fit(nodes):
    for name in ("ring", "complete"):
        lines = draw(load(name, nodes), 16, 8).splitlines()
        assert len(lines) <= 8
        assert max(len(line) for line in lines[:-1]) <= 16
