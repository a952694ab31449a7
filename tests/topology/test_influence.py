"""Weights by influence: what they keep in expectation, and what they are where that is known."""

import networkx as nx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from decentral.errors import ConfigError
from decentral.topology.influence import shares, weights_by_influence
from decentral.topology.topology import Topology
from tests.topology.test_mixing import assert_doubly_stochastic, connected_graphs
from tests.topology.topologies import named, of


def dense(topology: Topology, influence: list[float]) -> np.ndarray:
    """W, (n, n): row i holds node i's weights."""
    W = np.zeros((topology.nodes, topology.nodes))
    for node, row in enumerate(weights_by_influence(topology, influence)):
        assert list(row) == sorted({node, *topology.neighbors(node)})
        W[node, list(row)] = list(row.values())
    return W


def expected(W: np.ndarray, p: np.ndarray) -> np.ndarray:
    """The mean of all that one node's averaging does, by the matrices themselves."""
    identity = np.eye(len(p))
    V = np.zeros_like(W)
    for node, share in enumerate(p):
        one = identity.copy()
        one[node] = W[node]
        V += share * one
    return V


@settings(max_examples=100, deadline=None)
@given(connected_graphs(), st.integers(0, 2**20), st.sampled_from([0.0, 1.0, 3.0]))
def test_the_mean_of_all_stays_in_expectation(graph, seed, spread):
    topology = Topology.static("drawn", graph, "metropolis")
    influence = np.exp(spread * np.random.default_rng(seed).standard_normal(topology.nodes)).tolist()
    W = dense(topology, influence)
    assert (W >= 0).all()
    assert (np.diag(W) > 0).all()
    np.testing.assert_allclose(W.sum(axis=1), 1, rtol=0, atol=1e-12)
    assert_doubly_stochastic(expected(W, shares(influence, topology.nodes)))


@settings(max_examples=30, deadline=None)
@given(connected_graphs(), st.randoms(use_true_random=False))
def test_how_nodes_are_numbered_does_not_matter(graph, random):
    order = random.sample(range(len(graph)), len(graph))
    influence = [random.uniform(0.1, 2) for _ in graph]
    renumbered = nx.empty_graph(len(graph))
    renumbered.add_edges_from((order[i], order[j]) for i, j in graph.edges)
    one = dense(of([graph]), influence)
    other = dense(of([renumbered]), [influence[order.index(node)] for node in range(len(graph))])
    np.testing.assert_allclose(other[np.ix_(order, order)], one, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", ["ring", "complete", "hypercube", "torus"])
def test_equal_influence_on_a_regular_graph_gives_equal_weights(name):
    topology = named(name, 16)
    np.testing.assert_allclose(dense(topology, []), named(name, 16, weights="uniform").schedule.matrix(0).dense())
    np.testing.assert_allclose(dense(topology, [2.0] * 16), dense(topology, []))


def test_equal_influence_on_a_ring_of_cliques():
    """Each of 4 cliques has two nodes with a link to the next one. These have degree 4 and offer 1/5; of the other two
    2/5 is settled then, and they share the rest with each other: (1 - 2/5) / 2."""
    graph = nx.empty_graph(16)
    for first in range(0, 16, 4):
        graph.add_edges_from((first + i, first + j) for i in range(4) for j in range(i))
        graph.add_edge(first + 3, (first + 4) % 16)
    W = dense(of([graph]), [])
    np.testing.assert_allclose(W[0, [0, 1, 2, 3, 15]], 0.2)
    np.testing.assert_allclose(W[1, [0, 3]], 0.2)
    np.testing.assert_allclose(W[1, [1, 2]], 0.3)
    assert np.abs(W - W.T).max() < 1e-15


def test_a_star_is_shared_by_influence():
    """The hub, of degree 3, takes each by its share; what it offers a leaf is less than what that has."""
    W = dense(named("star", 4), [1.0, 2.0, 4.0, 1.0])
    np.testing.assert_allclose(W[0], np.array([1, 2, 4, 1]) / 8)
    np.testing.assert_allclose(W[1:, 0], 1 / 8)


def test_nobody_gives_away_more_than_it_has():
    """Node 0 is between four that have settled little with their many hubs: each offers it nearly a half."""
    graph, hubs = nx.empty_graph(1), range(5, 9)
    graph.add_edges_from((0, between) for between in range(1, 5))
    graph.add_edges_from((between, hub) for between in range(1, 5) for hub in hubs)
    graph.add_edges_from((hub, 9 + 100 * (hub - 5) + leaf) for hub in hubs for leaf in range(100))
    W = dense(of([graph]), [])
    assert W.min() >= 0
    np.testing.assert_allclose(W[0, :5], 0.2)


@pytest.mark.parametrize(
    ("influence", "told"),
    [
        ([1.0] * 7, "found 7 numbers of influence; required: one for each of the 8 nodes"),
        ([1.0] * 7 + [0.0], "found influence 0; required: a positive number for each node"),
        ([1.0] * 7 + [float("nan")], "found influence nan"),
    ],
)
def test_influence_that_is_none_is_refused(influence, told):
    with pytest.raises(ConfigError, match=told):
        weights_by_influence(named("ring", 8), influence)
