"""Rounds are counted as gossip does them, and rho bounds what a turn leaves of a disagreement."""

from math import e, inf

import networkx as nx
import numpy as np
import pytest

from decentral.topology.analysis import analyze, averaged
from decentral.topology.contraction import contraction_of, turns_of
from decentral.topology.topology import Topology

from .topologies import lopsided, named, of, one_peer_exponential, one_way_ring, random_matchings, random_shifts, shift


def counted(topology: Topology, fraction: float) -> int:
    """The first turn after which the product of all matrices so far leaves no more than `fraction`."""
    left, turn = np.eye(topology.nodes) - 1 / topology.nodes, 0
    while turn == 0 or np.linalg.norm(left, 2) > fraction * (1 + 1e-9):
        left, turn = topology.schedule.matrix(turn).dense() @ left, turn + 1
    return turn


@pytest.mark.parametrize(
    "topology",
    [
        named("ring", 12),
        named("star", 9),
        named("ring", 12, schedule="matchings"),
        named("tree", 10, schedule="matchings"),
        one_peer_exponential(8),
        one_peer_exponential(12),
        one_way_ring(10),
        of([nx.compose(shift(6, 1), shift(6, 2))], "uniform"),
    ],
    ids=["ring", "star", "ring matchings", "tree matchings", "exponential 8", "exponential 12", "one-way", "circulant"],
)
def test_rounds_are_what_products_leave(topology: Topology) -> None:
    found = analyze(topology)
    assert found.rounds_exact
    assert found.rounds_to_e == counted(topology, 1 / e)
    assert found.rounds_to_halve == counted(topology, 1 / 2)
    assert found.rounds_to_thousandth == counted(topology, 1 / 1000)


def test_the_exponential_graph_of_one_peer_is_exact_after_its_period() -> None:
    found = analyze(one_peer_exponential(16))
    assert (found.period, found.gap, found.rounds_to_thousandth) == (4, 1.0, 4)
    assert analyze(one_peer_exponential(12)).gap < 1


def test_gossip_that_never_averages_takes_for_ever() -> None:
    """Two pairs that mix among themselves alone, were it not for the links that the schedule never uses."""
    pairs = nx.Graph([(0, 1), (2, 3)])
    topology = of([nx.cycle_graph(4)])
    stuck = of([pairs, nx.cycle_graph(4)])
    schedule = type(stuck.schedule)((stuck.schedule.matrix(0),) * 2)  # type: ignore[call-arg]
    found = contraction_of(schedule, turns_of(schedule))
    assert found.rounds == (inf, inf, inf)
    assert found.gap == pytest.approx(0)
    assert contraction_of(topology.schedule, turns_of(topology.schedule)).gap > 0


def test_the_second_modulus_of_a_normal_directed_matrix_is_its_second_singular_value() -> None:
    found = analyze(one_way_ring(32))
    assert (found.l2, found.ln) == (None, None)
    assert found.second_modulus == pytest.approx(np.cos(np.pi / 32))
    assert found.second_singular_value == pytest.approx(np.cos(np.pi / 32))
    assert found.gap == pytest.approx(1 - np.cos(np.pi / 32))


def test_a_column_stochastic_matrix_is_judged_by_the_modulus() -> None:
    topology = lopsided(7)
    moduli = np.sort(np.abs(np.linalg.eigvals(topology.schedule.matrix(0).dense())))
    found = analyze(topology)
    assert found.mixing == "column-stochastic"
    assert found.second_modulus == pytest.approx(moduli[-2])
    assert found.gap == pytest.approx(1 - moduli[-2])
    assert found.second_singular_value is None
    assert not found.rounds_exact


def test_a_drawn_schedule_is_judged_by_the_expected_square() -> None:
    """All pairings of n nodes being alike, E[W^2 (I - J)] = (1 - n / (2 (n - 1))) (I - J)."""
    nodes = 10
    found = analyze(random_matchings(nodes))
    assert found.period is None
    expected = 1 - nodes / (2 * (nodes - 1))
    assert expected < (1 - found.gap) ** 2 < expected + 0.08  # a sample's largest eigenvalue is above the mean's
    assert not found.rounds_exact
    assert "estimated from 256 turns" in found.gap_of


def test_a_directed_draw_is_judged_by_the_square_of_its_matrices() -> None:
    topology = random_shifts(9)
    turns = [topology.schedule.matrix(turn).dense() for turn in range(256)]
    square = np.mean([W.T @ W for W in turns], axis=0) - 1 / 9
    assert (1 - analyze(topology).gap) ** 2 == pytest.approx(np.linalg.eigvalsh(square)[-1])


@pytest.mark.parametrize(
    "topology",
    [lopsided(40), one_way_ring(40), one_peer_exponential(24), random_matchings(40)],
    ids=["column-stochastic", "one-way", "exponential", "random"],
)
def test_iterative_solvers_find_what_dense_ones_do(topology: Topology, monkeypatch: pytest.MonkeyPatch) -> None:
    exact = averaged(topology)[1]
    monkeypatch.setattr("decentral.topology.spectrum.EXACT_COMPLEX_NODES", 3)
    monkeypatch.setattr("decentral.topology.spectrum.EXACT_NODES", 3)
    assert averaged(topology)[1] == pytest.approx(exact, abs=1e-5)


def test_the_mean_of_a_directed_schedule_lies_on_its_links() -> None:
    mean, _ = averaged(one_peer_exponential(8))
    assert mean.kind == "doubly-stochastic"
    assert mean.row(0).weights == pytest.approx({0: 1 / 2, 1: 1 / 6, 2: 1 / 6, 4: 1 / 6})


def test_a_gap_too_small_for_lanczos_is_said_to_be_a_bound() -> None:
    found = analyze(named("ring", 20_000, schedule="matchings"))
    assert "the gap may be smaller yet" in found.gap_of
    assert 0 < found.gap < 1e-4
