import networkx as nx
import numpy as np
import pytest
from hypothesis import given as sampled
from hypothesis import settings
from hypothesis import strategies as st
from scipy.sparse import csr_array

from decentral.errors import ConfigError
from decentral.loading import example_with
from decentral.topology.assembly import Family, topology_of
from decentral.topology.graph import checked_graph
from decentral.topology.mixing import WEIGHTS, MixingMatrix, Row, given, metropolis, mixing_matrix, uniform
from decentral.topology.stochastic import kind_of
from decentral.topology.topology import Topology


@st.composite
def connected_graphs(draw):
    """A random spanning tree and random further edges, some nodes with a self-loop."""
    nodes = draw(st.integers(1, 24))
    graph = nx.empty_graph(nodes)
    graph.add_edges_from((draw(st.integers(0, i - 1)), i) for i in range(1, nodes))
    pairs = st.tuples(st.integers(0, nodes - 1), st.integers(0, nodes - 1))
    graph.add_edges_from(draw(st.lists(pairs, max_size=60)))
    return checked_graph(graph, nodes, "drawn.py")


def assert_doubly_stochastic(W):
    assert (W >= 0).all()
    assert np.abs(W.sum(axis=0) - 1).max() <= 1e-12
    assert np.abs(W.sum(axis=1) - 1).max() <= 1e-12
    assert np.abs(W - W.T).max() <= 1e-12


@settings(max_examples=60, deadline=None)
@sampled(connected_graphs())
def test_metropolis_is_doubly_stochastic_on_every_connected_graph(graph):
    topology = Topology.static("drawn", graph, "metropolis")
    W = topology.schedule.matrix(0).dense()
    assert_doubly_stochastic(W)
    degree = [len(topology.neighbors(i)) for i in range(topology.nodes)]
    for i, j in topology.edges:
        assert W[i, j] == 1 / (1 + max(degree[i], degree[j]))
    for node in range(topology.nodes):
        row = topology.row(node)
        assert row.sources == row.to == topology.neighbors(node)
        assert list(row.weights) == sorted({node, *topology.neighbors(node)})
        assert row.weights == {j: W[node, j] for j in row.weights}


@settings(max_examples=40, deadline=None)
@sampled(connected_graphs())
def test_given_weights_survive_the_way_through_a_graph(graph):
    W = metropolis(graph).dense()
    weighted = nx.from_numpy_array(W)
    assert np.array_equal(given(checked_graph(weighted, len(W), "drawn.py")).dense(), W)


@st.composite
def strong_digraphs(draw):
    """A random directed cycle through all nodes and random further edges."""
    nodes = draw(st.integers(1, 16))
    order = draw(st.permutations(range(nodes)))
    graph = nx.empty_graph(nodes, create_using=nx.DiGraph)
    graph.add_edges_from((order[i - 1], order[i]) for i in range(nodes) if nodes > 1)
    pairs = st.tuples(st.integers(0, nodes - 1), st.integers(0, nodes - 1))
    graph.add_edges_from(draw(st.lists(pairs, max_size=40)))
    return checked_graph(graph, nodes, "drawn.py")


@settings(max_examples=60, deadline=None)
@sampled(strong_digraphs())
def test_column_stochastic_weights_keep_the_sum_on_every_digraph(graph):
    """Push-sum needs no more: columns sum to 1, own weights are positive, an edge is where the graph has one."""
    W = mixing_matrix(graph, "column-stochastic").dense()
    assert (W >= 0).all()
    assert (W.diagonal() > 0).all()
    assert np.abs(W.sum(axis=0) - 1).max() <= 1e-12
    for sender in graph:
        receivers = [j for j in graph.successors(sender) if j != sender]
        assert [i for i in np.flatnonzero(W[:, sender]) if i != sender] == sorted(receivers)
        np.testing.assert_allclose(W[[sender, *receivers], sender], 1 / (1 + len(receivers)), rtol=1e-15)


@settings(max_examples=40, deadline=None)
@sampled(strong_digraphs())
def test_given_weights_survive_the_way_through_a_digraph(graph):
    W = mixing_matrix(graph, "column-stochastic").dense()
    weighted = nx.from_numpy_array(W.T, create_using=nx.DiGraph)
    np.testing.assert_array_equal(given(checked_graph(weighted, len(W), "drawn.py")).dense(), W)


@settings(max_examples=40, deadline=None)
@sampled(st.integers(3, 20), st.sets(st.integers(1, 19), min_size=1, max_size=4), st.booleans())
def test_uniform_weights_of_regular_graphs_are_doubly_stochastic(nodes, offsets, directed):
    offsets = {offset % nodes or 1 for offset in offsets} | {1}
    graph = nx.empty_graph(nodes, create_using=nx.DiGraph if directed else nx.Graph)
    graph.add_edges_from((i, (i + offset) % nodes) for i in range(nodes) for offset in offsets)
    W = mixing_matrix(checked_graph(graph, nodes, "drawn.py"), "uniform")
    assert W.kind in (("doubly-stochastic", "symmetric") if directed else ("symmetric",))
    assert len({*W.sparse.data.tolist()}) == 1
    np.testing.assert_allclose(W.dense().sum(axis=1), 1, rtol=0, atol=1e-12)


@settings(max_examples=30, deadline=None)
@sampled(strong_digraphs())
def test_symmetric_weights_are_refused_on_every_digraph(graph):
    for weights in ("metropolis", "fastest"):
        with pytest.raises(ConfigError, match="undirected graph, found a directed one"):
            mixing_matrix(graph, weights)


@pytest.mark.parametrize("weights", WEIGHTS)
@pytest.mark.parametrize("nodes", [1, 2, 7])
def test_regular_graphs_take_all_weights_alike(weights, nodes):
    graph = nx.complete_graph(nodes)
    nx.set_edge_attributes(graph, 1 / nodes, "weight")
    W = mixing_matrix(graph, weights).dense()
    assert_doubly_stochastic(W)
    np.testing.assert_allclose(W, 1 / nodes, rtol=1e-14)


def test_sums_stay_exact_on_a_hub_with_very_many_leaves():
    metropolis(nx.star_graph(100_000))


def test_rows_hold_plain_numbers():
    row = metropolis(nx.path_graph(3)).row(1)
    assert row == Row(1, {0: 1 / 3, 1: 1 - 2 / 3, 2: 1 / 3}, (0, 2))
    assert {type(key) for key in row.weights} == {int}
    assert {type(value) for value in row.weights.values()} == {float}
    assert row.sources == (0, 2)


def test_a_row_includes_its_node_even_at_weight_zero():
    triangle = nx.complete_graph(3)
    nx.set_edge_attributes(triangle, 0.5, "weight")
    assert given(triangle).row(0).weights == {0: 0.0, 1: 0.5, 2: 0.5}
    assert MixingMatrix(csr_array(np.array([[0.0, 1.0], [1.0, 0.0]]))).row(0).weights == {0: 0.0, 1: 1.0}


def test_a_self_loop_sets_the_own_weight_and_is_no_neighbor():
    graph = nx.Graph()
    graph.add_weighted_edges_from([(0, 1, 0.25), (0, 0, 0.75)])
    topology = Topology.static("pair", checked_graph(graph, 2, "pair.txt"), "given")
    assert topology.row(0).weights == {0: 0.75, 1: 0.25}
    assert topology.neighbors(0) == (1,)
    assert topology.edges == ((0, 1),)
    assert topology.schedule.period == 1


GIVEN = {"name": "pair", "weights": "given"}


def weighted(*edges):
    graph = nx.Graph()
    graph.add_weighted_edges_from(edges)
    return graph


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: uniform(nx.star_graph(3)), r"found degrees 1, 3; use weights: metropolis"),
        (lambda: uniform(nx.star_graph(3)), r"needs a regular graph"),
        (lambda: given(nx.path_graph(2)), r"edge 0-1 has no weight"),
        (lambda: given(weighted((0, 1, 0))), r"edge 0-1 has weight 0"),
        (lambda: given(weighted((0, 1, 0.7), (1, 2, 0.7))), r"node 1 have weights that sum to 1\.4.* leaves -0\.4"),
        (lambda: given(weighted((0, 1, 0.5), (0, 0, 0.4))), r"column 0 of the mixing matrix sums to 0\.9; required: 1"),
        (lambda: metropolis(nx.DiGraph([(0, 1), (1, 0)])), r"need an undirected graph, found a directed one"),
        (lambda: mixing_matrix(nx.path_graph(2), "metroplis"), r"unknown weights 'metroplis'; did you mean 'metrop"),
    ],
)
def test_refusals_name_the_place_and_the_value(build, message):
    with pytest.raises(ConfigError, match=message):
        build()


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ([[1.5, -0.5], [-0.5, 1.5]], r"edge 1-0 has mixing weight -0\.5; required: finite and not negative"),
        ([[float("nan"), 1.0], [1.0, 0.0]], r"edge 0-0 has mixing weight nan"),
        ([[0.5, 0.5], [0.4, 0.5]], r"column 0 of the mixing matrix sums to 0\.9; required: 1 within 1e-12"),
        ([[0.5, 0.5], [0.6, 0.4]], r"column 0 of the mixing matrix sums to 1\.1"),
    ],
)
def test_what_is_no_mixing_matrix_is_refused_by_place_and_value(entries, message):
    with pytest.raises(ConfigError, match=message):
        kind_of(csr_array(np.array(entries)))


@pytest.mark.parametrize(
    ("entries", "kind"),
    [
        ([[0.5, 0.5], [0.5, 0.5]], "symmetric"),
        ([[0, 0.2, 0.8], [0.8, 0, 0.2], [0.2, 0.8, 0]], "doubly-stochastic"),
        ([[0.5, 1.0], [0.5, 0.0]], "column-stochastic"),
    ],
)
def test_a_matrix_is_what_its_sums_make_it(entries, kind):
    assert kind_of(csr_array(np.array(entries))) == kind


def test_two_sides_that_swap_models_for_ever_are_refused():
    with pytest.raises(ConfigError, match="eigenvalue -1"):
        topology_of(Family([weighted((0, 1, 1.0))], "pair"), example_with(topology=GIVEN).topology, 2)


def test_an_arc_of_a_directed_graph_lets_its_head_receive():
    """Of 0 -> 1 node 1 is the receiver: a transposed matrix would make the columns' sums those of the rows."""
    graph = checked_graph(nx.DiGraph([(0, 1), (1, 2), (2, 0), (0, 2)]), 3, "drawn.py")
    W = mixing_matrix(graph, "column-stochastic")
    np.testing.assert_allclose(W.dense(), [[1 / 3, 0, 1 / 2], [1 / 3, 1 / 2, 0], [1 / 3, 1 / 2, 1 / 2]], rtol=1e-15)
    assert W.kind == "column-stochastic"
    assert W.row(0) == Row(0, {0: 1 / 3, 2: 1 / 2}, (1, 2))
    assert W.row(2).sources == (0, 1)
    assert Topology.static("drawn", graph, "column-stochastic").neighbors(1) == (0, 2)
