"""Tokens that fork where too few seem to live: against losses, and the estimate by which they do."""

from functools import cache

import networkx as nx
import numpy as np
import pytest

from decentral.errors import ConfigError
from decentral.topology.chains import Chain, chain
from decentral.topology.population import Population, Regulation, Sightings, recovery
from decentral.topology.walks import Walk

KILLS = {2000: 5, 3500: 6}


@cache
def regular(kernel: str = "metropolis", alpha: float = 0.0) -> Chain:
    """8-regular, on 100 nodes."""
    return chain(nx.random_regular_graph(8, 100, seed=1), Walk(kernel, alpha))


def test_after_losses_there_are_enough_again_within_hundreds_of_hops_and_never_none() -> None:
    """Ten tokens that fork below 2: of published simulations, 5 lost are made good for in 157 to 324 hops."""
    living = Population(regular(), 0, 10, Regulation(2.0, None, 10)).run(4500, KILLS)
    assert (living[1000:2000] >= 8).all()
    assert (living[2000], living[3500]) == (living[1999] - 5, living[3499] - 6)
    for since in KILLS:
        waited = recovery(living, since, 8)
        assert waited is not None
        assert 50 < waited < 600
    assert living.min() >= 3
    assert living.max() <= 14


def test_without_a_rule_all_are_lost() -> None:
    living = Population(regular(), 0, 10).run(3600, KILLS)
    assert living[[0, 1999, 2000, 3499, 3500, 3599]].tolist() == [10, 10, 5, 5, 0, 0]
    assert recovery(living, 2000, 8) is None


def test_hops_that_lose_tokens() -> None:
    lost = Population(regular(), 0, 10, loss=2e-3).run(3000, {})
    assert lost[-1] == 0
    assert (np.diff(lost) <= 0).all()
    kept = Population(regular(), 0, 10, Regulation(2.0, None, 10), loss=2e-4).run(5000, {})
    assert kept.min() >= 3


def test_too_many_drop() -> None:
    """Twenty tokens, twice as many as both bounds allow."""
    crowd = Population(regular(), 0, 20, Regulation(2.0, 7.0, 20)).run(2500, {})
    assert crowd[0] == 20
    assert 8 <= crowd[-1] <= 15


@pytest.mark.parametrize("tokens", [4, 12])
def test_the_estimate_is_half_of_the_living_in_the_mean(tokens: int) -> None:
    """On the complete graph of 20 the returns are geometric, so each token's age has a uniform survival."""
    random, n = np.random.default_rng(0), 20
    known, estimates = [Sightings(dict.fromkeys(range(tokens), 0)) for _ in range(n)], []
    for t in range(4000):
        for token, node in enumerate(random.integers(n, size=tokens).tolist()):
            known[node].note(token, t)
            if t > 1000:
                estimates.append(known[node].estimate(token, t, 1 / n))
    assert np.mean(estimates) == pytest.approx(tokens / 2, rel=0.06)


def test_a_lost_token_counts_less_and_less_and_is_forgotten() -> None:
    known = Sightings({0: 0, 1: 0}, returns=[1, 2, 3, 4])
    assert [known.estimate(0, t, 0.25) for t in (0, 2, 4)] == pytest.approx(
        [0.5 + (longer + 0.75**t) / 5 for t, longer in ((0, 4), (2, 2), (4, 0))]
    )
    known.estimate(0, 100, 0.25)
    assert known.last == {0: 0}


def test_tokens_that_remember_hand_their_counts_to_forks() -> None:
    crowd = Population(regular("srrw", 5.0), 0, 6, Regulation(2.5, None, 6))
    living = crowd.run(1300, {1000: 2})
    assert living[-1] > 4
    assert {token.counts.sum() for token in crowd.living if token.counts is not None} == {1400.0}


@pytest.mark.parametrize(("below", "above"), [(0.0, None), (float("nan"), None), (3.0, 2.0), (5.0, None)])
def test_bounds_that_are_none_are_refused(below: float, above: float | None) -> None:
    with pytest.raises(ConfigError, match="tokens fork below"):
        Regulation(below, above, 10)
