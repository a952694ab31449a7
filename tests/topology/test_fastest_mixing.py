"""Fastest-mixing weights: against optima that are known, and against every other weights on random graphs."""

import networkx as nx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from decentral.errors import ConfigError
from decentral.topology.analysis import spectrum
from decentral.topology.fastest_mixing import GAP, fastest_weights
from decentral.topology.mixing import MixingMatrix, fastest, metropolis, of_edges
from decentral.topology.scaling import scaled


def rho(matrix: MixingMatrix) -> float:
    return 1 - spectrum(matrix).gap


def two_triangles() -> nx.Graph:
    return nx.Graph([(0, 1), (0, 2), (1, 2), (2, 3), (3, 4), (3, 5), (4, 5)])


@pytest.mark.parametrize(
    ("graph", "least"),
    [
        (nx.path_graph(2), 0.0),
        (nx.path_graph(7), np.cos(np.pi / 7)),  # Boyd, Diaconis, Sun and Xiao 2006: weights 1/2 on a path
        (nx.complete_graph(6), 0.0),
        (nx.star_graph(7), 6 / 7),
        (nx.convert_node_labels_to_integers(nx.hypercube_graph(3)), 0.5),
        (nx.complete_bipartite_graph(2, 3), 3 / 7),  # w on all edges: 1 - 2 w = 5 w - 1
    ],
    ids=["pair", "path", "complete", "star", "cube", "bipartite"],
)
def test_known_optima(graph: nx.Graph, least: float) -> None:
    assert rho(fastest(graph)) == pytest.approx(least, abs=2 * GAP)


@settings(max_examples=25, deadline=None)
@given(st.integers(2, 12), st.floats(0.1, 1), st.integers(0, 10_000))
def test_nothing_mixes_faster(nodes: int, density: float, seed: int) -> None:
    """Neither Metropolis nor the best constant weights, nor a small change of the answer to a convex problem."""
    graph = nx.gnp_random_graph(nodes, density, seed=seed)
    graph.add_edges_from(nx.random_labeled_tree(nodes, seed=seed).edges)
    found = fastest(graph)
    assert found.kind == "symmetric"
    assert found.dense().min() >= 0
    assert set(zip(*np.nonzero(np.triu(found.dense(), 1)), strict=True)) <= set(graph.edges)
    laplacian = nx.laplacian_matrix(graph, nodelist=range(nodes)).toarray()
    values = np.linalg.eigvalsh(laplacian)
    constant = np.eye(nodes) - min(2 / (values[1] + values[-1]), 1 / laplacian.max()) * laplacian
    assert rho(found) <= min(rho(metropolis(graph)), np.linalg.norm(constant - 1 / nodes, 2)) + 1e-12
    assert rho(found) <= rho(scaled(metropolis(graph), "optimal")) + GAP
    edges = np.array(graph.edges)
    weights, random = found.dense()[edges[:, 0], edges[:, 1]], np.random.default_rng(seed)
    for _ in range(20):
        nearby = weights * (1 + 0.05 * random.standard_normal(len(edges)))
        own = 1 - np.bincount(edges.ravel(), np.repeat(nearby, 2), minlength=nodes)
        if own.min() >= 0 and nearby.min() >= 0:
            assert rho(of_edges(edges, nearby, nodes)) >= rho(found) - GAP


def test_a_bottleneck_gets_more_weight() -> None:
    W, before = fastest(two_triangles()).dense(), metropolis(two_triangles()).dense()
    assert W[2, 3] > 1.5 * before[2, 3]
    assert rho(fastest(two_triangles())) < rho(metropolis(two_triangles())) - 0.04


def test_it_is_deterministic_and_follows_the_graph_when_nodes_are_renamed() -> None:
    """Any eigenvector of a multiple eigenvalue would do for a subgradient, and each machine's would be another."""
    graph = nx.convert_node_labels_to_integers(nx.davis_southern_women_graph())
    order = np.random.default_rng(0).permutation(32)
    renamed = nx.relabel_nodes(graph, dict(enumerate(order.tolist())))
    W = fastest(graph).dense()
    np.testing.assert_array_equal(W, fastest(graph).dense())
    np.testing.assert_allclose(fastest(renamed).dense()[np.ix_(order, order)], W, rtol=0, atol=1e-5)
    assert rho(fastest(graph)) == pytest.approx(0.869687, abs=2 * GAP)


def test_what_it_does_not_take() -> None:
    with pytest.raises(ConfigError, match="at most 200 nodes and 1,000 edges, found 201 and 201; use weights: metrop"):
        fastest(nx.cycle_graph(201))
    with pytest.raises(ConfigError, match="found 46 and 1,035"):
        fastest(nx.complete_graph(46))
    with pytest.raises(ConfigError, match="need an undirected graph"):
        fastest(nx.DiGraph([(0, 1), (1, 0)]))
    with pytest.raises(ConfigError, match="connected in each turn"):
        fastest(nx.Graph([(0, 1), (2, 3)]))
    assert fastest(nx.empty_graph(1)).dense() == [[1.0]]
    assert len(fastest_weights(np.empty((0, 2), dtype=np.int64), 1)) == 0
