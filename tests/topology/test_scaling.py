"""W_s = (1 - s) I + s W: the published factors, what is best of all s, and what is refused."""

from pathlib import Path

import networkx as nx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from decentral.errors import ConfigError
from decentral.loading import example_with
from decentral.topology import gallery
from decentral.topology.analysis import spectrum
from decentral.topology.mixing import column_stochastic, metropolis, uniform
from decentral.topology.scaling import scaled


@pytest.mark.parametrize(("nodes", "factor"), [(4, 1.0), (6, 1.2), (8, 1.3084), (12, 1.4058), (16, 1.4450)])
def test_the_best_factor_of_a_ring(nodes: int, factor: float) -> None:
    """PowerGossip's constant for the ring of 8 is 1.308."""
    W = metropolis(nx.cycle_graph(nodes))
    assert scaled(W, "optimal").dense()[0, 1] * 3 == pytest.approx(factor, abs=5e-5)


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 12), st.floats(0.2, 1), st.integers(0, 10_000))
def test_no_factor_mixes_faster_and_all_stay_mixing_matrices(nodes: int, density: float, seed: int) -> None:
    graph = nx.gnp_random_graph(nodes, density, seed=seed)
    graph.add_edges_from(nx.path_graph(nodes).edges)
    W = metropolis(graph)
    best = scaled(W, "optimal")
    assert best.kind == "symmetric"
    assert best.dense().min() >= 0
    limit = 1 / (1 - W.dense().diagonal().min())
    for factor in np.linspace(0.05, min(limit, 2.0), 25):
        other = scaled(W, float(factor))
        assert spectrum(other).gap <= spectrum(best).gap + 1e-9
        np.testing.assert_allclose(other.dense(), (1 - factor) * np.eye(nodes) + factor * W.dense(), rtol=0, atol=1e-15)
        np.testing.assert_allclose(other.dense().sum(axis=0), 1, rtol=0, atol=1e-12)


def test_lazy_weights_have_no_negative_eigenvalue() -> None:
    W = metropolis(nx.convert_node_labels_to_integers(nx.davis_southern_women_graph()))
    assert spectrum(W).last == pytest.approx(-0.4343, abs=5e-5)
    lazy = scaled(W, "lazy")
    np.testing.assert_allclose(lazy.dense(), (np.eye(32) + W.dense()) / 2, rtol=0, atol=1e-16)
    assert spectrum(lazy).last > 0


def test_none_changes_nothing_and_one_node_takes_all() -> None:
    W = metropolis(nx.cycle_graph(5))
    assert scaled(W, "none") is W
    for scaling in ("lazy", "optimal", 1.7):
        assert scaled(metropolis(nx.empty_graph(1)), scaling).dense() == [[1.0]]


def test_a_factor_that_is_clipped_leaves_an_own_weight_of_zero() -> None:
    W = metropolis(nx.convert_node_labels_to_integers(nx.davis_southern_women_graph()))
    found = spectrum(W)
    best = scaled(W, "optimal").dense()
    factor = (1 - best[25, 25]) / (1 - W.dense()[25, 25])
    assert best[25, 25] == 0.0
    assert factor < 2 / (2 - found.second - found.last)


DIRECTED = nx.DiGraph([(0, 1), (1, 2), (2, 0), (0, 2)])


def test_directed_weights_take_a_number_and_lazy() -> None:
    for graph, weights, kind in (
        (DIRECTED, column_stochastic, "column-stochastic"),
        (nx.DiGraph([(0, 1), (1, 2), (2, 0)]), uniform, "doubly-stochastic"),
    ):
        assert scaled(weights(graph), "lazy").kind == kind
        assert scaled(weights(graph), 0.3).kind == kind
        with pytest.raises(ConfigError, match=f"real spectrum of symmetric weights, found {kind}"):
            scaled(weights(graph), "optimal")


def test_a_factor_too_large_names_the_node_and_the_limit() -> None:
    with pytest.raises(ConfigError, match=r"1\.9 leaves node 0 the weight -0\.266667 of its own; at most 1\.5 is"):
        scaled(metropolis(nx.cycle_graph(8)), 1.9)
    assert scaled(metropolis(nx.cycle_graph(8)), 1.5).dense().diagonal().max() == 0


def test_the_best_factor_of_a_turn_that_connects_nobody_is_refused() -> None:
    section = example_with(topology={"name": "ring", "schedule": "matchings", "scaling": "optimal"}).topology
    with pytest.raises(ConfigError, match="all nodes connected in each turn"):
        gallery.load(section, 8, Path())
    lazy = example_with(topology={"name": "ring", "schedule": "matchings", "scaling": "lazy"}).topology
    assert gallery.load(lazy, 8, Path()).row(0).weights == {0: 0.75, 1: 0.25}
