"""The graph as a run's record keeps it: links with the mean of their weights, whatever the schedule."""

import pytest

from decentral.measure.record import summary_of

from ..topology.topologies import lopsided, named, one_peer_exponential, random_matchings


def test_a_static_graph_has_its_weights() -> None:
    found = summary_of(named("star", 4))
    assert found.edges == [(0, j, pytest.approx(1 / 4)) for j in (1, 2, 3)]
    assert found.self_weights == pytest.approx([1 / 4, 3 / 4, 3 / 4, 3 / 4])


def test_a_directed_schedule_has_the_mean_of_both_directions_and_of_all_turns() -> None:
    found = summary_of(one_peer_exponential(8))
    assert len(found.edges) == 8 * 2 + 4  # shifts by 1 and 2, and by 4, which is its own way back
    assert {(0, 1): 1 / 12, (0, 4): 1 / 6}.items() <= {(i, j): pytest.approx(w) for i, j, w in found.edges}.items()
    assert found.spectral_gap == 1


def test_a_drawn_schedule_has_the_mean_of_its_sampled_turns() -> None:
    found = summary_of(random_matchings(6))
    assert len(found.edges) == 15
    assert sum(weight for _, _, weight in found.edges) == pytest.approx(3 / 2)
    assert 0.2 < found.spectral_gap < 0.4


def test_a_column_stochastic_graph_has_a_gap() -> None:
    assert 0 < summary_of(lopsided(6)).spectral_gap < 1
