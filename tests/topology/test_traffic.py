"""Messages per round, counted by hand."""

import pytest

from decentral.topology.topology import Topology
from decentral.topology.traffic import Traffic, traffic

from .topologies import lopsided, named, one_peer_exponential, random_matchings


@pytest.mark.parametrize(
    ("topology", "expected"),
    [
        (named("ring", 1), (0, 0, 0)),
        (named("ring", 8), (2, 2, 2)),
        (named("star", 5), (8 / 5, 4, 4)),
        (named("star", 5, schedule="matchings"), (2 / 5, 1, 1)),
        (one_peer_exponential(8), (1, 1, 1)),
        (random_matchings(7), (6 / 7, 1, 1)),
        (lopsided(6), (7 / 6, 2, 2)),
    ],
    ids=["alone", "ring", "star", "star matchings", "exponential", "random", "directed"],
)
def test_messages(topology: Topology, expected: tuple[float, int, float]) -> None:
    found = traffic(topology)
    assert found == Traffic(pytest.approx(expected[0]), *expected[1:])
