"""What the files of the gallery say of their graphs, beyond what every one of them must hold."""

from pathlib import Path

import networkx as nx
import numpy as np
import pytest

from decentral.errors import ConfigError
from decentral.loading import example_with
from decentral.topology import gallery
from decentral.topology.analysis import analyze


def load(name, nodes, folder=Path(), **options):
    return gallery.load(example_with(topology={"name": name, **options}).topology, nodes, folder)


def edges(name, nodes, **options):
    return list(load(name, nodes, **options).edges)


def refused(name, nodes, folder=Path(), **options):
    with pytest.raises(ConfigError) as caught:
        load(name, nodes, folder, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("name", "nodes", "l2", "ln"),
    [
        ("karate", 34, 0.9688, -0.0799),
        ("florentine", 15, 0.9426, -0.1812),
        ("les_miserables", 77, 0.9927, -0.0534),
        ("two_cliques", 32, 0.9934, None),
        ("double_binary_trees", 32, 1 - 0.134, None),
        ("tree", 32, 1 - 0.0097, None),
        ("grid", 1024, 1 - 0.00196, None),
        ("fat_tree", 16, 1 - 4 / 12, None),
        ("fat_tree", 54, 1 - 6 / 20, None),
        ("fat_tree", 128, 1 - 8 / 28, None),
        ("path", 16, (1 + 2 * np.cos(np.pi / 16)) / 3, None),
    ],
)
def test_the_eigenvalues_that_the_files_name(name, nodes, l2, ln):
    analysis = analyze(load(name, nodes))
    assert analysis.l2 == pytest.approx(l2, abs=1e-3 if name == "double_binary_trees" else 6e-5)
    assert analysis.gap == pytest.approx(1 - analysis.l2)
    if ln is not None:
        assert analysis.ln == pytest.approx(ln, abs=6e-5)


@pytest.mark.parametrize(("name", "nodes", "links", "most"), [("karate", 34, 78, 17), ("les_miserables", 77, 254, 36)])
def test_social_networks_are_plain(name, nodes, links, most):
    topology = load(name, nodes)
    assert len(topology.edges) == links
    assert max(len(topology.neighbors(node)) for node in range(nodes)) == most
    assert "has no weight" in refused(name, nodes, weights="given")
    assert f"has exactly {nodes}" in refused(name, nodes + 1)


def test_the_hubs_that_the_files_name():
    assert len(load("florentine", 15).neighbors(1)) == 6
    assert len(load("les_miserables", 77).neighbors(10)) == 36
    assert list(nx.florentine_families_graph())[1] == "Medici"
    assert list(nx.les_miserables_graph())[10] == "Valjean"


@pytest.mark.parametrize(
    ("name", "nodes", "options", "wanted"),
    [
        ("path", 4, {}, [(0, 1), (1, 2), (2, 3)]),
        ("grid", 6, {}, [(0, 1), (0, 3), (1, 2), (1, 4), (2, 5), (3, 4), (4, 5)]),
        ("two_cliques", 6, {}, [(0, 1), (0, 2), (1, 2), (2, 3), (3, 4), (3, 5), (4, 5)]),
        ("two_cliques", 5, {"path": 1}, [(0, 1), (1, 2), (2, 3), (3, 4)]),
        ("double_binary_trees", 4, {}, [(0, 1), (0, 2), (1, 3), (2, 3)]),
        ("racks", 5, {"racks": [3, 2]}, [(0, 1), (0, 2), (0, 3), (1, 2), (3, 4)]),
        ("racks", 4, {"racks": 2, "uplinks": 2}, [(0, 1), (0, 2), (1, 3), (2, 3)]),
        ("racks", 4, {"racks": 4, "between": "star"}, [(0, 1), (0, 2), (0, 3)]),
        ("racks", 4, {"racks": 4, "between": "path"}, [(0, 1), (1, 2), (2, 3)]),
        ("racks", 3, {"racks": 1}, [(0, 1), (0, 2), (1, 2)]),
        ("caveman", 4, {"caves": 1}, [(0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3)]),
    ],
)
def test_edges(name, nodes, options, wanted):
    assert edges(name, nodes, **options) == wanted


@pytest.mark.parametrize("nodes", [9, 32, 33, 100])
def test_two_cliques_are_networkx_barbells(nodes):
    if nodes % 2 == 0:
        assert nx.utils.edges_equal(load("two_cliques", nodes).graph.edges, nx.barbell_graph(nodes // 2, 0).edges)
    assert nx.is_isomorphic(load("two_cliques", 9, path=3).graph, nx.barbell_graph(3, 3))
    assert len(list(nx.bridges(load("two_cliques", nodes).graph))) == 1


@pytest.mark.parametrize(("caves", "size"), [(3, 4), (4, 5), (2, 6), (5, 3)])
def test_caves_of_one_size_are_those_of_networkx(caves, size):
    theirs = nx.connected_caveman_graph(caves, size)
    assert set(edges("caveman", caves * size, caves=caves)) == {(min(e), max(e)) for e in theirs.edges}


@pytest.mark.parametrize("nodes", [4, 7, 16, 32, 100])
def test_double_binary_trees(nodes):
    """Both trees span the nodes, and no node has children in both."""
    topology = load("double_binary_trees", nodes)
    tree = load("tree", nodes).edges
    mirrored = {tuple(sorted((nodes - 1 - i, nodes - 1 - j))) for i, j in tree}
    assert set(topology.edges) == set(tree) | mirrored
    apart = load("double_binary_trees", nodes, apart=True)
    assert apart.edges == topology.edges
    each = [np.argwhere(np.triu(apart.schedule.matrix(turn).dense(), 1)).tolist() for turn in range(2)]
    assert each == [sorted(map(list, turn)) for turn in (tree, mirrored)]
    assert apart.schedule.period == 2
    assert max(len(topology.neighbors(node)) for node in range(nodes)) <= 4


def test_a_fat_tree_joins_what_differs_in_one_coordinate():
    topology = load("fat_tree", 54)  # 6 ports: 6 pods of 3 switches of 3 hosts
    assert {len(topology.neighbors(node)) for node in range(54)} == {2 * 6 - 3}
    assert topology.neighbors(0) == (1, 2, 3, 6, 9, 18, 27, 36, 45)
    assert nx.diameter(topology.graph) == 3


def test_racks_by_a_map():
    topology = load("racks", 10, racks=[4, 4, 2], between="complete", uplinks=2)
    rack = [0] * 4 + [1] * 4 + [2] * 2
    between = [(i, j) for i, j in topology.edges if rack[i] != rack[j]]
    assert between == [(0, 4), (0, 8), (1, 5), (1, 9), (4, 8), (5, 9)]
    assert len(topology.edges) - len(between) == 6 + 6 + 1


def test_geographic_links_are_the_short_ones():
    topology = load("geographic", 40, radius=0.4, seed=1)
    pos = np.array([topology.graph.nodes[node]["pos"] for node in range(40)])
    near = np.linalg.norm(pos[:, None] - pos, axis=2) <= 0.4
    assert set(topology.edges) == {(i, j) for i, j in np.argwhere(near).tolist() if i < j}
    assert edges("geographic", 40, seed=1) != edges("geographic", 40, seed=2)


@pytest.mark.parametrize("nodes", [2, 50, 500])
def test_geographic_grows_its_radius_until_all_are_connected(nodes):
    for seed in range(5):
        assert nx.is_connected(load("geographic", nodes, seed=seed).graph)


def test_geographic_places_from_a_file(tmp_path):
    (tmp_path / "flat.csv").write_text("x,y\n0,0\n3,4\n6,8\n100, 0\n")
    assert list(load("geographic", 4, tmp_path, places="flat.csv", radius=95).edges)[:2] == [(0, 1), (0, 2)]
    assert "not connected" in refused("geographic", 4, tmp_path, places="flat.csv", radius=5)
    cities = "latitude,longitude\n52.52,13.40\n48.86,2.35\n40.71,-74.01\n"  # Berlin, Paris, New York
    (tmp_path / "cities.csv").write_text(cities)
    near = load("geographic", 3, tmp_path, places="cities.csv", radius=6000)
    assert near.edges == ((0, 1), (1, 2))  # 878 and 5837 km; Berlin to New York are 6385
    assert len(load("geographic", 3, tmp_path, places="cities.csv", radius=6400).edges) == 3
    assert near.graph.nodes[0]["pos"] == (13.4, -52.52)


@pytest.mark.parametrize(
    ("name", "nodes", "options", "message"),
    [
        ("two_cliques", 8, {"path": 7}, "path=7 for nodes=8"),
        ("two_cliques", 8, {"path": -1}, "path=-1"),
        ("caveman", 8, {"caves": 9}, "caves=9 for nodes=8"),
        ("caveman", 8, {"caves": 0}, "caves=0"),
        ("racks", 8, {"racks": [4, 3]}, "racks=[4, 3] hold 7 nodes for nodes=8"),
        ("racks", 8, {"racks": [8, 0]}, "racks=[8, 0]"),
        ("racks", 8, {"racks": []}, "racks=[] hold 0"),
        ("racks", 8, {"racks": 9}, "racks=9 for nodes=8"),
        ("racks", 8, {"racks": "many"}, "found 'many'"),
        ("racks", 8, {"uplinks": 5}, "uplinks=5 for racks of 4"),
        ("racks", 8, {"between": "rings"}, "found 'rings'"),
        ("grid", 8, {"rows": 3}, "rows=3 does not divide nodes=8"),
        ("grid", 7, {}, "nodes=7 is prime"),
        ("fat_tree", 100, {}, "k^3/4 hosts: 54 or 128"),
        ("geographic", 8, {"radius": -1}, "radius=-1"),
        ("geographic", 8, {"places": "gone.csv"}, "gone.csv"),
    ],
)
def test_options_that_do_not_fit(name, nodes, options, message):
    assert message in refused(name, nodes, **options)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "begins with ''; the header x,y or"),
        ("0,0\n1,1\n", "begins with '0,0'; the header x,y or latitude,longitude is required"),
        ("x,y\n0,0\n", "holds 1 places for nodes=2"),
        ("x,y\n0,0\n1\n", "the place of node 1"),
        ("x,y\n0,0\n1,nan\n", "the place of node 1"),
        ("x,y\n0,0\n1,east\n", "two numbers are required"),
    ],
)
def test_places_that_cannot_be_read(tmp_path, text, message):
    (tmp_path / "places.csv").write_text(text)
    assert message in refused("geographic", 2, tmp_path, places="places.csv")


def test_positions_are_kept_only_where_they_are_sound(tmp_path):
    file = tmp_path / "mine.py"
    for pos, kept in (
        ("(0, i)", True),
        ("[0.5, -i]", True),
        ("None", False),
        ("(0, float('nan'))", False),
        ("7", False),
    ):
        file.write_text(
            "import networkx as nx\n\ndef build(nodes):\n    graph = nx.path_graph(nodes)\n"
            f"    nx.set_node_attributes(graph, {{i: {pos} for i in graph}}, 'pos')\n    return graph\n"
        )
        assert all("pos" in data for _, data in load("mine.py", 4, tmp_path).graph.nodes(data=True)) == kept
