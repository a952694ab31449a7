import json
from math import cos, inf, pi
from pathlib import Path

import networkx as nx
import numpy as np
import pytest

import decentral.topology.analysis as analysis
from decentral.loading import example_with
from decentral.topology import gallery
from decentral.topology.analysis import analyze, diameter, rounds_to, spectrum
from decentral.topology.topology import Topology


def load(name, nodes, weights="metropolis", **options):
    return gallery.load(example_with(topology={"name": name, "weights": weights, **options}).topology, nodes, Path())


@pytest.mark.parametrize(
    ("name", "nodes", "second", "last"),
    [
        ("davis", 32, 0.9179, -0.4343),
        ("torus", 32, 0.8828, -0.6),
        ("hypercube", 32, 2 / 3, -2 / 3),
        ("complete", 32, 0, 0),
        ("star", 32, 0.9688, 0),
        ("ring", 8, (1 + 2 * cos(2 * pi / 8)) / 3, -1 / 3),
        ("exponential", 16, 0.5, -0.2724),
    ],
)
def test_known_spectra(name, nodes, second, last):
    found = spectrum(load(name, nodes).schedule.matrix(0))
    assert found.second == pytest.approx(second, abs=5e-5)
    assert found.last == pytest.approx(last, abs=5e-5)
    assert found.gap == 1 - max(abs(found.second), abs(found.last))


@pytest.mark.parametrize("weights", ["metropolis", "uniform"])
@pytest.mark.parametrize("nodes", [3, 4, 7, 8, 32])
def test_ring_eigenvalues(nodes, weights):
    values = np.linalg.eigvalsh(load("ring", nodes, weights).schedule.matrix(0).dense())
    expected = sorted((1 + 2 * cos(2 * pi * k / nodes)) / 3 for k in range(nodes))
    np.testing.assert_allclose(values, expected, atol=1e-14)
    if nodes % 2 == 0:
        assert values[0] == pytest.approx(-1 / 3, abs=1e-14)


@pytest.mark.parametrize(("rows", "columns"), [(4, 8), (3, 5), (6, 6)])
def test_torus_eigenvalues_show_that_it_is_not_twisted(rows, columns):
    values = np.linalg.eigvalsh(load("torus", rows * columns, rows=rows).schedule.matrix(0).dense())
    expected = [
        (1 + 2 * cos(2 * pi * a / rows) + 2 * cos(2 * pi * b / columns)) / 5
        for a in range(rows)
        for b in range(columns)
    ]
    np.testing.assert_allclose(values, sorted(expected), atol=1e-14)


@pytest.mark.parametrize(("name", "nodes"), [("ring", 64), ("tree", 100), ("random_regular", 200), ("hypercube", 128)])
def test_the_sparse_solvers_agree_with_the_dense_one(name, nodes, monkeypatch):
    matrix = load(name, nodes).schedule.matrix(0)
    dense = spectrum(matrix)
    monkeypatch.setattr("decentral.topology.spectrum.EXACT_NODES", 10)
    sparse = spectrum(matrix)
    assert sparse.second == pytest.approx(dense.second, abs=1e-8)
    assert sparse.last == pytest.approx(dense.last, abs=1e-5)


def test_a_large_ring_has_its_tiny_gap():
    nodes = 10_000
    gap = 2 / 3 * (1 - cos(2 * pi / nodes))
    assert spectrum(load("ring", nodes).schedule.matrix(0)).gap == pytest.approx(gap, rel=1e-5)


@pytest.mark.parametrize(
    "graph", [nx.cycle_graph(9), nx.path_graph(17), nx.star_graph(5), nx.complete_graph(4), nx.grid_graph([5, 6])]
)
def test_diameter(graph, monkeypatch):
    graph = nx.convert_node_labels_to_integers(graph)
    assert diameter(graph) == nx.diameter(graph)
    monkeypatch.setattr("decentral.topology.distances.EXACT_NODES", 3)
    assert diameter(graph) <= nx.diameter(graph)


def test_analysis_of_a_star():
    found = analyze(load("star", 5))
    assert (found.nodes, found.edges, found.diameter, found.diameter_exact) == (5, 4, 2, True)
    assert (found.degree_min, found.degree_max, found.degree_mean) == (1, 4, 1.6)
    assert found.gap == pytest.approx(0.2)
    assert (found.rounds_to_halve, found.rounds_to_thousandth) == (4, 31)


def test_one_node_and_an_exact_average():
    assert spectrum(load("ring", 1).schedule.matrix(0)) == (0, 0, 1)
    for found in (analyze(load("ring", 1)), analyze(load("complete", 8))):
        assert (found.rounds_to_halve, found.rounds_to_thousandth) == (1, 1)
    assert analyze(load("ring", 1)).diameter == 0


@pytest.mark.parametrize(
    ("fraction", "gap", "rounds"), [(0.5, 0.5, 1), (0.25, 0.5, 2), (0.001, 0.9, 3), (0.5, 1, 1), (0.5, 0, inf)]
)
def test_rounds(fraction, gap, rounds):
    assert rounds_to(fraction, gap) == rounds


def test_rounds_bound_the_disagreement():
    matrix = load("ring", 12).schedule.matrix(0)
    rounds = rounds_to(1 / 2, spectrum(matrix).gap)
    x = np.cos(2 * pi * np.arange(12) / 12)  # the eigenvector of l_2: the worst case
    after = np.linalg.matrix_power(matrix.dense(), int(rounds)) @ x
    before = np.linalg.matrix_power(matrix.dense(), int(rounds) - 1) @ x
    assert np.linalg.norm(after) <= np.linalg.norm(x) / 2 < np.linalg.norm(before)


def test_json_knows_no_infinity():
    triangle = nx.complete_graph(2)
    found = analyze(Topology.static("pair", triangle, "metropolis"))
    stuck = analysis.Analysis(**{**found.as_dict(), "rounds_to_halve": inf})
    assert stuck.as_dict()["rounds_to_halve"] is None
    assert json.loads(json.dumps(stuck.as_dict(), allow_nan=False))["nodes"] == 2


def test_a_schedule_is_judged_by_the_product_of_its_matrices() -> None:
    """One partner a round on a ring of four: two turns are an exact average, one is none. On longer rings rho is the
    root of the product's second singular value, and gossip shrinks the disagreement at that rate.
    """
    four = analyze(load("ring", 4, schedule="matchings"))
    assert (four.gap, four.rounds_to_halve) == (1.0, 2)
    topology = load("ring", 12, schedule="matchings")
    assert topology.schedule.period == 2
    even, odd = (topology.schedule.matrix(turn).dense() for turn in (0, 1))
    rho = np.linalg.svd(odd @ even - 1 / 12, compute_uv=False)[0] ** 0.5
    found = analyze(topology)
    assert found.gap == pytest.approx(1 - rho, abs=1e-12)
    assert found.l2 == pytest.approx(np.linalg.eigvalsh((even + odd) / 2)[-2])
    assert found.degree_max == 2


def test_the_rate_of_a_large_schedule_is_found_without_a_dense_product(monkeypatch: pytest.MonkeyPatch) -> None:
    topology = load("torus", 64, schedule="matchings")
    exact = analyze(topology).gap
    monkeypatch.setattr("decentral.topology.spectrum.EXACT_NODES", 10)
    monkeypatch.setattr("decentral.topology.spectrum.EXACT_COMPLEX_NODES", 10)
    monkeypatch.setattr("decentral.topology.contraction.MULTIPLIED_NODES", 10)
    assert analyze(topology).gap == pytest.approx(exact, abs=1e-6)
