"""The gallery in the order of predicted rates."""

import pytest

from decentral.topology import gallery
from decentral.topology.ranking import Entry, Link, Wish, ranked, why_not_the_gap

NAMES = ("complete", "davis", "hypercube", "ring", "star", "torus")


def order(entries: list[Entry]) -> list[str]:
    return [entry.name for entry in entries]


def test_by_the_rate_at_the_best_learning_rate() -> None:
    entries, omitted = ranked(NAMES, 32, None, Wish())
    assert order(entries) == ["complete", "hypercube", "torus", "ring", "davis", "star"]
    assert not omitted
    assert entries[3].rate == pytest.approx(0.12566, abs=1e-4)
    assert entries[3].learning_rate == pytest.approx(0.0914, abs=1e-3)
    sentence = why_not_the_gap(entries, Wish())
    assert "not by the spectral gap" in sentence
    assert "ring, number 4 by the rate per round, is number 6 of 6 by the gap" in sentence


def test_what_does_not_exist_or_talks_too_much_is_left_out_with_the_reason() -> None:
    entries, omitted = ranked(NAMES, 24, 4, Wish())
    assert order(entries) == ["torus", "ring"]
    reasons = {one.name: one.reason for one in omitted}
    assert set(reasons) == {"complete", "davis", "hypercube", "star"}
    assert "its busiest node has 23 neighbors in a round, above 4" in reasons["star"]
    assert "32" in reasons["davis"]
    assert all("\n" not in reason for reason in reasons.values())


def test_by_n_w_at_a_gamma() -> None:
    entries, _ = ranked(NAMES, 32, None, Wish(gamma=0.999))
    assert order(entries)[0] == "complete"
    assert [entry.score for entry in entries] == sorted((entry.neighbors for entry in entries), reverse=True)
    assert dict(zip(order(entries), entries, strict=True))["ring"].score == pytest.approx(28.9, rel=0.01)


def test_at_a_learning_rate_that_a_topology_does_not_bear_it_comes_last() -> None:
    entries, _ = ranked(NAMES, 32, None, Wish(learning_rate=0.1))
    assert order(entries)[-1] == "star"
    assert entries[-1].rate is not None
    assert entries[-1].rate < 0 < (entries[0].rate or 0)


def test_per_second_few_messages_count() -> None:
    """On a slow link the ring's two messages win over the complete graph's 31; on one of pure latency they do not."""
    slow = Wish(link=Link(model_bytes=4e7, rate_bit_s=1e8, latency_s=0.0))
    entries, _ = ranked(("complete", "ring"), 32, None, slow)
    assert order(entries) == ["ring", "complete"]
    assert [entry.round_s for entry in entries] == pytest.approx([2 * 3.2, 31 * 3.2])
    far = Wish(link=Link(model_bytes=4.0, rate_bit_s=1e12, latency_s=0.1))
    assert order(ranked(("complete", "ring"), 32, None, far)[0]) == ["complete", "ring"]


def test_the_whole_gallery_can_be_ranked() -> None:
    """Each name is either ranked or left out with a reason, whatever its kind of matrix and schedule."""
    entries, omitted = ranked(gallery.names(), 12, None, Wish())
    assert {*order(entries), *(one.name for one in omitted)} == set(gallery.names())
    assert len(entries) >= 7
