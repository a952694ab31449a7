"""From a data file to a topology: what a format may hold and a topology may not."""

import json

import networkx as nx
import numpy as np
import pytest

from decentral.errors import ConfigError
from decentral.loading import example_with
from decentral.topology import gallery

SQUARE = np.array([[0, 1, 0, 1], [1, 0, 1, 0], [0, 1, 0, 1], [1, 0, 1, 0]])
ROUND = np.roll(np.eye(3), 1, axis=1)  # 0 -> 1 -> 2 -> 0


def load(folder, name, nodes, weights=None):
    return gallery.load(example_with(topology={"name": name, "weights": weights}).topology, nodes, folder)


def refused(folder, name, nodes, weights=None):
    with pytest.raises(ConfigError) as caught:
        load(folder, name, nodes, weights)
    assert "\n" not in str(caught.value)
    assert caught.value.at == ("topology",)
    return str(caught.value)


def node_link(*edges, directed=False, nodes=(0, 1, 2)):
    links = [{"source": i, "target": j} | ({"weight": w[0]} if w else {}) for i, j, *w in edges]
    return json.dumps({"directed": directed, "nodes": [{"id": node} for node in nodes], "links": links})


def test_one_square_in_every_format(tmp_path):
    square = nx.from_numpy_array(SQUARE)
    for _, _, data in square.edges(data=True):
        data.clear()
    np.save(tmp_path / "a.npy", SQUARE)
    nx.write_gml(square, tmp_path / "a.gml")
    nx.write_graphml(square, tmp_path / "a.graphml")
    (tmp_path / "a.csv").write_text("source,target\n0,1\n1,2\n2,3\n3,0\n")
    (tmp_path / "a.json").write_text(json.dumps(nx.node_link_data(square)))
    for suffix in ("npy", "gml", "graphml", "csv", "json"):
        topology = load(tmp_path, f"a.{suffix}", 4)
        assert topology.edges == ((0, 1), (0, 3), (1, 2), (2, 3))
        assert topology.row(0).weights == pytest.approx({0: 1 / 3, 1: 1 / 3, 3: 1 / 3})


def test_a_mixing_matrix_saved_as_an_array_is_used_as_it_is(tmp_path):
    W = np.array([[0.5, 0.3, 0.2], [0.3, 0.7, 0], [0.2, 0, 0.8]])
    np.save(tmp_path / "w.npy", W)
    np.testing.assert_allclose(load(tmp_path, "w.npy", 3, "given").schedule.matrix(0).dense(), W, rtol=0, atol=1e-15)


def test_an_edge_lets_its_source_send_to_its_target(tmp_path):
    np.save(tmp_path / "a.npy", ROUND)
    (tmp_path / "a.json").write_text(node_link((0, 1), (1, 2), (2, 0), directed=True))
    nx.write_gml(nx.DiGraph([(0, 1), (1, 2), (2, 0)]), tmp_path / "a.gml")
    for name in ("a.npy", "a.json", "a.gml"):
        row = load(tmp_path, name, 3, "column-stochastic").row(1)
        assert (row.to, row.sources) == ((2,), (0,))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", "0,1\n1,n2\n", "a node labeled 'n2'"),
        ("a.csv", "1,2\n2,3\n", "a.csv holds a node labeled 3 for nodes=3"),
        ("a.csv", "0,1,nan\n1,2,1\n", "edge 0-1 of a.csv has weight nan"),
        ("a.csv", "0,1,-1\n1,2,1\n", "edge 0-1 of a.csv has weight -1.0"),
        ("a.csv", "0,1\n", "a.csv holds 2 nodes for nodes=3"),
        ("a.json", node_link((0, 1)), "a graph that is not connected"),
        ("a.json", node_link((0, 1, float("nan")), (1, 2)), "edge 0-1 of a.json has weight nan"),
        ("a.json", node_link((0, 1, "heavy"), (1, 2)), "has weight 'heavy'"),
        ("a.json", node_link((0, 1), (1, 2), (2, 0), directed=True), "metropolis are symmetric and need an undirected"),
        ("a.json", node_link((0, 1), (1, 2), directed=True), "not strongly connected"),
        ("a.json", node_link((0, True), (True, 2), nodes=(0, True, 2)), "a node labeled True"),
        ("a.json", node_link((0, 1.5), (1.5, 2), nodes=(0, 1.5, 2)), "a node labeled 1.5"),
        ("a.gml", "graph [ node [ id 1 ] node [ id 2 ] node [ id 3 ] ]", "a node labeled 3"),
    ],
)
def test_what_a_topology_may_not_hold(tmp_path, name, content, message):
    (tmp_path / name).write_text(content)
    assert message in refused(tmp_path, name, 3)


def test_a_directed_array_with_symmetric_weights(tmp_path):
    np.save(tmp_path / "a.npy", ROUND)
    assert "need an undirected graph, found a directed one" in refused(tmp_path, "a.npy", 3, "metropolis")


def test_the_documented_suffixes_are_those_that_are_read():
    from decentral.config import Topology

    said = Topology.model_fields["name"].description
    assert [suffix for suffix in gallery.SUFFIXES if suffix not in said] == []
