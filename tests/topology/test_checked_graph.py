import networkx as nx
import numpy as np
import pytest

import decentral.topology.graph as graph_module
from decentral.errors import ConfigError
from decentral.topology.graph import checked_graph


def refused(graph, nodes=4, source="topologies/mine.py"):
    with pytest.raises(ConfigError) as caught:
        checked_graph(graph, nodes, source)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_seven_nodes_for_eight():
    assert refused(nx.cycle_graph(7), 8, "topologies/ring.py") == (
        "topologies/ring.py returned 7 nodes for nodes=8; build(nodes) must return exactly the nodes 0..nodes-1"
    )


def test_a_data_file_holds_what_a_function_returns():
    assert refused(nx.cycle_graph(7), 8, "a.graphml").startswith("a.graphml holds 7 nodes for nodes=8; the file must")


@pytest.mark.parametrize("label", ["a", "0", 4, -1, 1.5, (0, 1)])
def test_wrong_labels_are_shown(label):
    graph = nx.relabel_nodes(nx.path_graph(4), {3: label})
    assert f"a node labeled {label!r} for nodes=4" in refused(graph)


def test_true_is_not_the_node_1():
    assert "a node labeled True" in refused(nx.path_graph([0, True, 2, 3]))


def test_a_long_label_is_cut_and_kept_on_one_line():
    message = refused(nx.relabel_nodes(nx.path_graph(4), {3: "line\n" * 10_000}))
    assert len(message) < 250


@pytest.mark.parametrize(
    ("graph", "message"),
    [
        (None, "returned a NoneType; a simple networkx.Graph or DiGraph is required"),
        ({0: [1]}, "returned a dict"),
        (nx.DiGraph([(0, 1), (1, 2), (2, 3)]), "not strongly connected: 4 strong components"),
        (nx.MultiGraph([(0, 1), (0, 1)]), "returned a multigraph"),
        (nx.Graph([(0, 1), (2, 3)]), "2 components, the smallest of 2 node(s) with node 0"),
        (nx.disjoint_union(nx.complete_graph(3), nx.empty_graph(1)), "the smallest of 1 node(s) with node 3"),
    ],
)
def test_what_is_no_connected_simple_graph(graph, message):
    assert message in refused(graph)


@pytest.mark.parametrize("weight", [-0.5, float("nan"), float("inf"), "heavy", True, 1j])
@pytest.mark.parametrize("edge", [(0, 1), (2, 2)])
def test_weights_are_finite_numbers_and_not_negative(weight, edge):
    graph = nx.path_graph(4)
    graph.add_edge(*edge, weight=weight)
    assert f"edge {edge[0]}-{edge[1]} of topologies/mine.py has weight {weight!r}" in refused(graph)


def test_too_many_edges(monkeypatch):
    monkeypatch.setattr(graph_module, "MAX_EDGES", 5)
    assert "returned 6 edges; at most 5 are allowed" in refused(nx.complete_graph(4))


def test_the_copy_is_plain_ordered_and_frozen():
    graph = nx.Graph()
    graph.add_edge(np.int64(2), np.int64(0), weight=np.float32(0.5), color="red")
    graph.add_edge(1, 0)
    checked = checked_graph(graph, 3, "mine.py")
    assert list(checked) == [0, 1, 2]
    assert {type(node) for node in checked} == {int}
    assert list(checked.edges(data=True)) == [(0, 1, {}), (0, 2, {"weight": 0.5})]
    with pytest.raises(nx.NetworkXError):
        checked.add_edge(1, 2)


def test_one_node_is_a_graph():
    assert list(checked_graph(nx.empty_graph(1), 1, "mine.py")) == [0]
